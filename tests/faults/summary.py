"""`python -m tests.faults.summary RECORD`: how often each fault was injected, what broke, and what that bounds."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def rows(record: Path) -> list[tuple[str, int, int, int, str]]:
    """(fault, rounds, injected, broken, bound by the rule of three) of each fault in the record."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for line in record.read_text(encoding="utf-8").splitlines():
        played = json.loads(line)
        found[played["fault"]][played["round"]] = played
    table = []
    for fault, played in sorted(found.items()):
        broken = sum(bool(one["broke"]) for one in played.values())
        injected = sum(one["injected"] for one in played.values())
        bound = f"{3 / max(1, injected):.2g}" if not broken else f"{broken}/{len(played)} broke"
        table.append((fault, len(played), injected, broken, bound))
    return table


if __name__ == "__main__":
    for row in rows(Path(sys.argv[1])):
        print("| " + " | ".join(map(str, row)) + " |")
