"""The report of a study: `report/index.html`, `answer.md`, `answer.json`, `front.html` and `front.png`.

python -m analysis.report runs/STUDY
"""

import argparse
import dataclasses
import math
import sys
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from absld_search.core.results import load, replacing, write_json
from analysis import cells, figures, page
from analysis.answer import Answer, answer


def write(study_folder: Path | str) -> Answer:
    """Write a study's `report/` and return its answer.

    Raises: FileNotFoundError where the folder is no study or has no results.
    """
    tables = load(study_folder)
    found, report = answer(tables), Path(study_folder) / "report"
    write_json(report / "answer.json", as_json(found))
    _write_text(report / "answer.md", markdown(found))
    _write_text(report / "index.html", page.answer_page(tables, found))
    _write_text(report / "front.html", page.front_page(tables))
    with replacing(report / "front.png") as temporary:
        figures.pareto_front(tables).savefig(temporary, format="png")
    return found


def table(found: Answer, width: int = 110) -> str:
    """The answer as plain text, for a terminal of at least 110 columns."""
    lines = [*_wrapped(found.question, width), "", *_aligned(*cells.rows(found, narrow=True), width)]
    for row in found.rows:
        lines += _wrapped(f"{row.arm}: {row.reason}", width, "! ") if row.reason else []
    if found.comparisons:
        lines += ["", *_aligned(*cells.comparisons(found), width)]
    if found.worst:
        lines += ["", *_aligned(*cells.worst(found), width, words=1)]
    if found.classes:
        lines += ["", *_aligned(*cells.classes(found), width)]
    if found.teachers:
        lines += ["", *_aligned(*cells.teachers(found), width)]
    lines += ["", *[line for row in found.rows if row.trial for line in _wrapped(cells.choice(row), width, "  ")]]
    lines += [
        "",
        *_wrapped(cells.legend(found, narrow=True), width),
        "",
        *[line for verdict in found.verdicts for line in _wrapped(verdict, width)],
        *_wrapped(found.power, width),
    ]
    return "\n".join(lines)


def markdown(found: Answer) -> str:
    """The answer as Markdown."""
    teachers = [_markdown_table(*cells.teachers(found)), cells.TEACHER_LEGEND] if found.teachers else []
    comparisons = [_markdown_table(*cells.comparisons(found)), cells.COMPARISON_LEGEND] if found.comparisons else []
    worst = [_markdown_table(*cells.worst(found)), cells.worst_legend(found)] if found.worst else []
    classes = [_markdown_table(*cells.classes(found)), cells.classes_legend(found)] if found.classes else []
    parts = [
        f"# {_plain_markdown(found.question)}",
        _plain_markdown(f"Study {found.study}, workload {found.workload}."),
        *[f"**{_plain_markdown(verdict)}**" for verdict in found.verdicts],
        _markdown_table(*cells.rows(found)),
        _markdown_list([f"{row.arm}: {row.reason}" for row in found.rows if row.reason]),
        cells.legend(found),
        *comparisons,
        found.power,
        *worst,
        *classes,
        *teachers,
        "Chosen parameters:",
        _markdown_list([cells.choice(row) for row in found.rows if row.trial]),
        "What the answer rests on:",
        _markdown_list(found.caveats),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(found: Answer) -> dict[str, Any]:
    """The answer as plain JSON values: fractions, each comparison with its verdict, null for what is not finite."""
    content = dataclasses.asdict(found) | {"sentence": found.sentence}
    for stored, comparison in zip(content["comparisons"], found.comparisons, strict=True):
        stored |= {"decided": comparison.decided, "general": comparison.general}
    return _finite(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of one study and print its answer."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write the report of a study.")
    parser.add_argument("study_folder", type=Path, metavar="STUDY_FOLDER", help="for example runs/my-study")
    folder = parser.parse_args(arguments).study_folder
    try:
        print(table(write(folder)))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\nreport: {folder / 'report' / 'index.html'}")
    return 0


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False
    )


def _aligned(heading: Sequence[str], rows: Sequence[Sequence[str]], width: int, words: int = 2) -> list[str]:
    """Lines of a table: the first `words` columns flush left and cut to fit into `width`, the others flush right."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths[:words]) > 8:
        widths[widths.index(max(widths[:words]))] -= 1
    lines = []
    for row in [heading, ["─" * needed for needed in widths], *rows]:
        cut = [cell if len(cell) <= w else f"{cell[: w - 1]}…" for cell, w in zip(row, widths, strict=True)]
        flush = [c.ljust(w) if i < words else c.rjust(w) for i, (c, w) in enumerate(zip(cut, widths, strict=True))]
        lines.append("  ".join(flush).rstrip())
    return lines


def _plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = escape(text, quote=False)
    for sign in "\\`*_[]|#":
        text = text.replace(sign, "\\" + sign)
    return text


def _markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(_plain_markdown, line)) + " |" for line in lines)


def _markdown_list(items: Sequence[str]) -> str:
    return "\n".join(f"* {_plain_markdown(item)}" for item in items)


if __name__ == "__main__":
    raise SystemExit(main())
