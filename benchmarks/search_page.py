"""What the benchmarks of the search found, as JSON beside the docs and as tables inside docs/search.md.

    python -m benchmarks.search_page        # the page's tables again, from docs/results/search/*.json

A table stands in the page between `<!-- NAME -->` and `<!-- /NAME -->`; everything else there is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analysis.writing import filled
from benchmarks import timing

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "results" / "search", DOCS / "search.md"
Row = Mapping[str, Any]


def read(out: Path, name: str) -> dict[str, Any]:
    """What was found before; empty where nothing was."""
    path = out / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write(out: Path, name: str, found: Row) -> None:
    """Keep it, and show it on the page where `out` is the page's own folder."""
    timing.write(out, name, found)
    if out.resolve() == RESULTS.resolve() and PAGE.exists():
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), name, TABLES[name](found)), encoding="utf-8")


def replay(found: Row) -> str:
    """Epochs that each combination needs."""
    about = (
        f"{found['configurations']} configurations, {found['seeds']} seeds, rungs of "
        f"{', '.join(map(str, found['rungs']))} epochs; all of them whole: {found['all_trained']} epochs. Medians with "
        "95 % bootstrap intervals."
    )
    ranked = [f"{name} {', '.join(f'{each:.2f}' for each in found['ranks'][name])}" for name in found["ranks"]]
    about += f" Rank correlation of a rung, one seed, with the mean of the whole trainings: {'; '.join(ranked)}."
    head = ["combination", "epochs to 95 %", "of random, none", "of Ray's pair", "n"]
    return f"{about}\n\n{_table(head, [_cells(row) for row in found['rows']])}"


def _cells(row: Row) -> list[str]:
    low, high = row["interval"]
    parts = [found for key, found in row.items() if key.startswith("of ")]
    shares = [f"{middle:.2f} [{a:.2f}, {b:.2f}]" for middle, a, b in parts]
    shares += ["–"] * (2 - len(shares))
    return [row["combination"], f"{row['median']:.0f} [{low:.0f}, {high:.0f}]", *shares, str(row["n"])]


def racing(found: Row) -> str:
    """Evaluations and errors of a race and of a fixed number of seeds."""
    head = ["configurations", "procedure", "evaluations [least, most]", "wrong front", "n"]
    worst, mean = (100 * each for each in found["noise"])
    about = f"Noise of one seed in the recorded trainings of digits: worst class {worst:.1f} points, mean {mean:.1f}."
    return f"{about}\n\n" + _table(head, [
        [str(row["configurations"]), row["procedure"],
         f"{row['evaluations']:.1f} [{row['least']}, {row['most']}]",
         f"{row['wrong']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]", str(row["n"])]
        for row in found["rows"]
    ])  # fmt: skip


def queue(found: Row) -> str:
    """What a trial costs the driver."""
    head = [
        "driver",
        "sampler",
        "stopping",
        "trials",
        "ms a trial",
        "first hundred",
        "last hundred",
        "MiB after a hundred",
        "at the end",
    ]
    return _table(head, [
        [row["way"], row["sampler"], row["stopping"], str(row["trials"]), f"{row['milliseconds']:.1f}",
         f"{row['hundreds'][0]:.1f}", f"{row['hundreds'][-1]:.1f}",
         *(f"{held:.0f}" for held in (row["memory"][1], row["memory"][-1]))]
        for row in found["rows"]
    ])  # fmt: skip


TABLES: dict[str, Callable[[Row], str]] = {"replay": replay, "racing": racing, "queue": queue}


def line(row: Row) -> str:
    """One row of the replay, for the terminal."""
    return "  ".join(_cells(row))


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def main() -> None:
    for name in TABLES:
        if found := read(RESULTS, name):
            PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), name, TABLES[name](found)), encoding="utf-8")


if __name__ == "__main__":
    main()
