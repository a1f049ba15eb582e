"""A report as Markdown."""

from collections.abc import Sequence
from html import escape

from analysis.answer import Answer
from analysis.contents import Block, Bullets, Picture, Section, Table, Words
from analysis.writing import markdown_table


def markdown(found: Answer, sections: Sequence[Section]) -> str:
    """The question, the answer, and the sections without their figures."""
    parts = [
        f"# {plain_markdown(found.question)}",
        plain_markdown(f"Study {found.study}, workload {found.workload}."),
        *[f"**{plain_markdown(notice)}**" for notice in found.notices],
        *[f"**{plain_markdown(verdict)}**" for verdict in found.verdicts],
    ]
    for section in sections:
        blocks = [_block(block) for block in section.blocks if not isinstance(block, Picture)]
        parts += [f"## {plain_markdown(section.title)}", *blocks] if blocks else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return table(block.heading, block.rows) + (f"\n\n{plain_markdown(block.note)}" if block.note else "")
    if isinstance(block, Bullets):
        return "\n".join(f"* {plain_markdown(item)}" for item in block.items)
    assert isinstance(block, Words)
    return plain_markdown(block.text)


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of words and numbers."""
    return markdown_table([*map(plain_markdown, heading)], ([*map(plain_markdown, row)] for row in rows))


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = " ".join(escape(text, quote=False).split())
    for sign in "\\`*_[]|#":
        text = text.replace(sign, "\\" + sign)
    return text
