"""What `benchmarks.scaling` found, as JSON beside the docs and as tables inside docs/scaling.md.

    python -m benchmarks.scaling_page        # the page's tables again, from docs/results/scaling/*.json

Each run has a file of its own, which the same run made again replaces. The tables stand in the page between
`<!-- measured -->` and `<!-- /measured -->`; everything else there is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.writing import filled, markdown_table
from benchmarks import timing
from benchmarks.pages import DOCS

RESULTS, PAGE = DOCS / "results" / "scaling", DOCS / "scaling.md"
HEAD = [
    "trials", "driver's CPU each, ms", "ask, ms: median, 99th percentile", "tell, ms", "database, MB",
    "driver's memory, MB",
]  # fmt: skip
GROWN = {"cpu_ms": ("ms of the driver's CPU each", 1.0), "ask_p50_ms": ("ms of an ask", 1.0),
         "database_mb": ("kB of the database a trial", 1e3), "memory_mb": ("kB of memory a trial", 1e3)}  # fmt: skip
TOTALS = ("database_mb", "memory_mb")  # of all trials so far; the others are of each
Run = Mapping[str, Any]


def write(out: Path, found: Run) -> None:
    """Keep a run, and show it on the page where `out` is the page's own folder."""
    name = "-".join(str(found[key]) for key in ("through", "database", "sampler", "trials"))
    timing.write(out, name, found)
    if out.resolve() == RESULTS.resolve():
        fill()


def fill() -> None:
    """The page, from what is kept."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")]
    order = sorted(found, key=lambda run: (run["through"] != "ray", run["database"], run["sampler"], -run["trials"]))
    text = "\n\n".join(map(section, order))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "measured", text), encoding="utf-8")


def section(run: Run) -> str:
    """What one run was, its table, and how it grew."""
    return "\n\n".join(filter(None, [_title(run), _table(run["marks"]), growth(run["marks"])]))


def _title(run: Run) -> str:
    ways = {"ray": "through Ray Tune", "queue": "without Ray"}
    cores = run["machine"]["cores"]
    where = f"{run['machine']['cpu']}, {cores} core{'s' * (cores != 1)} for all of it"
    what = f"**{run['trials']:,} trials, {run['sampler']}, {ways[run['through']]}, {run['database']}**"
    each = f"{run['epochs']} report each" + (f", after {run['sleep']:g} s" if run.get("sleep") else "")
    line = f"{what} ({run['slots']} slots, {each}; {where}; {run['machine']['date']})"
    if "note" in run:
        return f"{line}. {run['note']}"
    ended = f"{run['seconds'] / 60:.0f} minutes, {run['cpu_each_ms']:.0f} ms of the driver's CPU for each training"
    tails = ", ".join(f"{name} {run[f'{name}_p99_ms']:.0f} ms" for name in ("ask", "tell"))
    return f"{line}: {ended}; 99th percentiles over all: {tails}. Ended: {', '.join(run['states'])}."


def _table(marks: Sequence[Run]) -> str:
    lines = [[f"{row['ended']:,}", f"{row['cpu_ms']:.0f}", _pair(row, "ask"), _pair(row, "tell"),
              f"{row['database_mb']:.1f}", f"{row['memory_mb']:.0f}"] for row in marks]  # fmt: skip
    return markdown_table(HEAD, lines)


def _pair(row: Run, name: str) -> str:
    return f"{row[f'{name}_p50_ms']:.0f}, {row[f'{name}_p99_ms']:.0f}"


def growth(marks: Sequence[Run]) -> str:
    """How it grew after the first line, which pays for the start of the workers; empty below three lines."""
    if len(marks) < 3:
        return ""
    first, last = marks[1], marks[-1]
    span = last["ended"] - first["ended"]
    said = []
    for key, (unit, scale) in GROWN.items():
        if key in TOTALS:
            said.append(f"{scale * (last[key] - first[key]) / span:.1f} {unit}")
        else:
            said.append(f"{scale * (last[key] - first[key]) / span * 1000:+.1f} {unit} for every thousand before it")
    return f"From the second line to the last, {first['ended']:,} to {last['ended']:,} trials: {'; '.join(said)}."


if __name__ == "__main__":
    fill()
