"""An answer as plain text, for a terminal."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace

from analysis import cells
from analysis.answer import Answer


def table(found: Answer, width: int = 110) -> str:
    """The answer as plain text, for a terminal of at least 110 columns."""
    notices = [line for notice in found.notices for line in _wrapped(notice, width, "! ")]
    lines = [*_wrapped(found.question, width), *notices, "", *_arms(found, width)]
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
        *_wrapped("The other tables' columns are explained below them in the report.", width),
        "",
        *[line for verdict in found.verdicts for line in _wrapped(verdict, width)],
        *_wrapped(found.power, width),
    ]
    return "\n".join(lines)


def shortest(found: Answer, width: int = 110) -> str:
    """Of the same, the arms, how they differ, and what is decided.

    Without the minutes: a training that waited for the machine took longer than it would take whoever reads this.
    """
    timeless = [
        replace(row, measures={name: spread for name, spread in row.measures.items() if name != "minutes"})
        for row in found.rows
    ]
    parts = [
        _arms(replace(found, rows=timeless), width),
        _aligned(*cells.comparisons(found), width) if found.comparisons else [],
    ]
    parts.append([line for verdict in found.verdicts for line in _wrapped(verdict, width)])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _arms(found: Answer, width: int) -> list[str]:
    """The table of arms. Where it is too wide the trials are left out, not cut: each stands whole beside its choice."""
    heading, rows = cells.rows(found, narrow=True)
    if _width(heading, rows) <= width:
        return _aligned(heading, rows, width)
    place = heading.index("trial")
    heading, *rows = [[*row[:place], *row[place + 1 :]] for row in (heading, *rows)]
    return _aligned(heading, rows, width, words=1)


def _width(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


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
