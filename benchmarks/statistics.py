"""What intervals, tests and objectives of a worst class are worth, on simulated trainings whose truth is known.

python -m benchmarks.statistics [--short] [--out DIR] [--repetitions N] [--only TABLE] [--study STUDY_FOLDER]

Every table is seeded and goes to a JSON file of its own; with 1,000 repetitions all of them take some minutes on one
core. `--study` adds a null check on the stored verdicts of a real study. docs/statistics.md says what was chosen
because of the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import statistics_intervals as intervals
from benchmarks import statistics_search as search
from benchmarks import timing
from benchmarks.options import parser

Row = dict[str, Any]
SHORT = 50  # repetitions with --short
TABLES = {
    "coverage-images": intervals.coverage_over_images,
    "debiasing": intervals.debiasing,
    "coverage-arms": intervals.coverage_of_arms,
    "coverage-seeds": intervals.coverage_over_seeds,
    "null-check": intervals.null_check,
    "null-without-ties": intervals.null_without_ties,
    "right-order": search.right_order,
    "search": search.studies,
}


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parts = parser(__doc__, ("--repetitions", int, 1000, "of every table"))
    parts.add_argument("--only", choices=[*TABLES, "none"], help="one table alone, or none but that of --study")
    parts.add_argument("--study", type=Path, help="a study folder: the null check on its confirmed verdicts too")
    told = parts.parse_args(words)
    told.repetitions = min(SHORT, told.repetitions) if told.short else told.repetitions
    return told


def main(words: Sequence[str] | None = None) -> int:
    """Print every table and write it to `statistics-NAME.json`."""
    told = asked(words)
    for name, make in TABLES.items():
        if told.only in (None, name):
            _show(name, make(told.repetitions), told)
    if told.study:
        _show("null-check-stored", intervals.stored_null_check(told.study, told.repetitions), told)
    return 0


def _show(name: str, rows: list[Row], told: argparse.Namespace) -> None:
    timing.write(told.out, f"statistics-{name}", {"repetitions": told.repetitions, "rows": rows})
    print(table(name, rows), "\n", flush=True)


def table(title: str, rows: list[Row]) -> str:
    """Rows as a Markdown table under their title."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[[_cell(value) for value in row.values()] for row in rows]]
    return "\n".join([f"### {title}", "", *["| " + " | ".join(line) + " |" for line in lines]])


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "–" if value is None else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
