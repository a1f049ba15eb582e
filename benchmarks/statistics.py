"""What intervals, tests and objectives of a worst class are worth, on simulated trainings whose truth is known.

python -m benchmarks.statistics [--out DIR] [--repetitions N] [--study STUDY_FOLDER]

Every table is seeded; with 1,000 repetitions it takes some minutes on one core. `--study` adds a null check on the
stored verdicts of a real study. docs/statistics.md says what was chosen because of the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import statistics_intervals as intervals
from benchmarks import statistics_search as search
from benchmarks import timing

Row = dict[str, Any]
SECTIONS = {
    "coverage over images": intervals.coverage_over_images,
    "coverage of an arm's worst class": intervals.coverage_of_arms,
    "coverage over seeds": intervals.coverage_over_seeds,
    "null check": intervals.null_check,
    "right order at 1 point": search.right_order,
    "search of 100 configurations": search.studies,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every table and write `statistics.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description="Simulated statistics.")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--study", type=Path, help="a study folder: the null check on its confirmed verdicts too")
    asked = parser.parse_args(arguments)
    found: dict[str, list[Row]] = {}
    for title, section in SECTIONS.items():
        found[title] = section(asked.repetitions)
        print(table(title, found[title]), "\n", flush=True)
    if asked.study:
        found["null check on stored verdicts"] = intervals.stored_null_check(asked.study, asked.repetitions)
        print(table("null check on stored verdicts", found["null check on stored verdicts"]))
    print("written:", timing.write(asked.out, "statistics", {"repetitions": asked.repetitions, "tables": found}))
    return 0


def table(title: str, rows: list[Row]) -> str:
    """Rows as a Markdown table under their title."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[[_cell(value) for value in row.values()] for row in rows]]
    return "\n".join([f"### {title}", "", *["| " + " | ".join(line) + " |" for line in lines]])


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
