"""The results of all benchmarks as one Markdown page: RESULTS/*.json -> RESULTS/results.md, and printed.

    python -m benchmarks.page [--out RESULTS]

Whatever a script has written is shown: its rows as a table, its other numbers as a list, the machine above them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.writing import markdown_table
from benchmarks.options import options

TABLES = ("ratios", "rows")  # lists of rows in a result


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """{script: what it wrote} as Markdown, in the order of the names."""
    return "\n".join(line for name in sorted(results) for line in section(name, results[name]))


def section(name: str, found: Mapping[str, Any]) -> list[str]:
    """A heading, the machine, the tables, the rest."""
    lines = [f"## {name}", "", _machine(found.get("machine", {})), ""]
    for key, value in found.items():
        if _is_table(value):
            lines += [*([f"{key}:", ""] if key not in TABLES else []), *_table(value), ""]
    rest = [f"* {key}: {_shown(value)}" for key, value in found.items() if key != "machine" and not _is_table(value)]
    return [*lines, *rest, ""]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_shown(row.get(name, "")) for name in names] for row in rows]
    return [markdown_table(names, cells)]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return str(value).replace("|", "\\|")


def _machine(facts: Mapping[str, Any]) -> str:
    named = {"cpu": "", "cores": " cores", "gpu": "", "torch": "torch ", "date": ""}
    kept = {key: text for key, text in named.items() if facts.get(key)}
    parts = [f"{facts[key]}{text}" if key == "cores" else f"{text}{facts[key]}" for key, text in kept.items()]
    return ", ".join(parts)


def main() -> None:
    folder: Path = options(__doc__).out
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    text = page(found) if found else f"{folder} holds no results yet: run `make bench`.\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
