"""Texts of a report, whole or not at all, and pages that a person writes around them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from absld_search.core.files import replacing


def write_text(path: Path, text: str) -> None:
    """A text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells, which are Markdown already, as a table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows))


def filled(page: str, name: str, text: str) -> str:
    """The page with `text` between `<!-- NAME -->` and `<!-- /NAME -->`. Raises: ValueError where it has no place."""
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"the page has no place for {name}: <!-- {name} --> ... <!-- /{name} -->")
    return place.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)
