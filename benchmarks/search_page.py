"""What the benchmarks of the search found, as JSON beside the docs and as tables inside docs/search.md.

python -m benchmarks.search_page        # the page's tables again, from docs/results/search/*.json

"""

from __future__ import annotations

from analysis.writing import markdown_table as table
from benchmarks.pages import DOCS, Page, Row


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
    return f"{about}\n\n{table(head, [_cells(row) for row in found['rows']])}"


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
    about = f"Noise of one seed in the recorded trainings of digits: worst class {worst:.1f} points, mean {mean:.1f}"
    about += f", correlation {found['correlation']:.2f}."
    return f"{about}\n\n" + table(head, [
        [str(row["configurations"]), row["procedure"],
         f"{row['evaluations']:.1f} [{row['least']}, {row['most']}]",
         f"{row['wrong']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]", str(row["n"])]
        for row in found["rows"]
    ])  # fmt: skip


def queue(found: Row) -> str:
    """What a training costs the driver: with rungs a trial has several."""
    head = [
        "driver",
        "sampler",
        "stopping",
        "trainings",
        "ms a training",
        "first hundred",
        "last hundred",
        "MiB after a hundred",
        "at the end",
    ]
    return table(head, [
        [row["way"], row["sampler"], row["stopping"], str(row["trials"]), f"{row['milliseconds']:.1f}",
         f"{row['hundreds'][0]:.1f}", f"{row['hundreds'][-1]:.1f}",
         *(f"{held:.0f}" for held in (row["memory"][1], row["memory"][-1]))]
        for row in found["rows"]
    ])  # fmt: skip


PAGE = Page(DOCS / "search.md", DOCS / "results" / "search", {"replay": replay, "racing": racing, "queue": queue})


def line(row: Row) -> str:
    """One row of the replay, for the terminal."""
    return "  ".join(_cells(row))


if __name__ == "__main__":
    PAGE.again()
