"""`python -m tests.faults.summary [--write]`: docs/reliability.md's tables, from the promises and the records.

How often each fault was injected, what broke, the bound by the rule of three; and what stock Ray Tune does.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults.promises import PROMISES, Promise

DOCS = Path(__file__).parents[2] / "docs"
PAGE, RECORD, STOCK = (
    DOCS / "reliability.md",
    DOCS / "results/reliability.jsonl",
    DOCS / "results/reliability-stock.jsonl",
)
Rows = list[dict[str, Any]]


def read(file: Path, name: str) -> dict[str, Rows]:
    """{fault: its rounds} of a record; of a round that was played twice, the last."""
    found: dict[str, dict[Any, dict[str, Any]]] = defaultdict(dict)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        found[row[name]][row["round"] if name == "fault" else number] = row
    return {fault: list(rows.values()) for fault, rows in found.items()}


def promises(record: dict[str, Rows], stock: dict[str, Rows]) -> str:
    """A row each: fault, promise, tests, how often it was injected, what broke, and what that bounds."""
    lines = ["| id | fault | promise | test | injected | broken | rate below | stock |", "| --- " * 8 + "|"]
    for each in PROMISES:
        rounds = [row for name in each.recorded for row in record.get(name, [])]
        injected = sum(row["injected"] for row in rounds) or each.cases
        broken = sum(bool(row["broke"]) for row in rounds)
        shown = [each.id, each.fault, each.holds, _tests(each), _injected(each, injected, len(rounds)), str(broken)]
        bound = f"{3 / injected:.2g}" if injected >= 10 and not broken else "-"
        lines.append(
            "| " + " | ".join([*shown, bound, "; ".join(_stock(stock.get(name, [])) for name in each.stock)]) + " |"
        )
    return "\n".join(lines)


def _tests(each: Promise) -> str:
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in each.tests:
        file, _, name = test.partition("::")
        by_file[file].append(name)
    shown = [f"`{file}::{name}`" for file, names in by_file.items() for name in names]
    return ", ".join([*shown, *(f"`tests.faults.run {name}`" for name in each.recorded)])


def _injected(each: Promise, injected: int, rounds: int) -> str:
    if not rounds:
        return f"{injected} a run" if injected else "each"
    return f"{injected} in {rounds} studies" if injected != rounds else str(injected)


def _stock(rows: Rows) -> str:
    """What stock Ray Tune did in these rounds; "" where none was played."""
    if not rows:
        return ""
    fault, n = rows[0]["stock"], len(rows)
    said = [f"`{fault}`, n={n}: exit {_several(row['first_exit'] for row in rows)}"]
    for key, words in WORDS.items():
        values = [max(0, row.get(key, 0)) for row in rows]
        if any(values):
            said.append(f"{_several(values)} {words}")
    more = [sum(row["optuna"].values()) - row["asked_for"] for row in rows]
    said += [f"{_several(more)} trials more than the {rows[0]['asked_for']} asked for"] * (max(more) > 0)
    said += [f"{_several(row['mlflow_runs'].get('RUNNING', 0) for row in rows)} MLflow runs RUNNING for ever"] * any(
        row["mlflow_runs"].get("RUNNING") for row in rows
    )
    return ", ".join(said)


WORDS = {
    "epochs_repeated": "of 120 epochs trained again",
    "epochs_missing": "of 120 epochs never trained",
    "zombies": "Optuna trials RUNNING for ever",
    "infinite_on_front": "infinite trials on Optuna's front",
}


def _several(values: Iterable[Any]) -> str:
    """Equal values once, several as their range and median."""
    found = sorted(values)
    if found[0] == found[-1]:
        return str(found[0])
    return f"{found[0]} to {found[-1]} (median {statistics.median(found):g})"


def page(text: str) -> str:
    """`text` with its generated part made anew."""
    head, begin, rest = text.partition("<!-- promises: python -m tests.faults.summary --write -->\n")
    _, end, tail = rest.partition("<!-- end of promises -->")
    assert begin and end, f"{PAGE} has lost its marks"
    return head + begin + promises(read(RECORD, "fault"), read(STOCK, "stock")) + "\n" + end + tail


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(promises(read(RECORD, "fault"), read(STOCK, "stock")))
