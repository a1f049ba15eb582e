r"""The tables of a report for a paper: LaTeX that needs only the packages `booktabs` and `graphicx`.

A table that is wider than the text is scaled down to it; one that fits stays as it is.

`\input` the file, or take a table out of it. Every word that somebody chose is escaped.
"""

from collections.abc import Sequence

from analysis.answer import Answer, warnings
from analysis.contents import Section, Table

SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "[": "{[}", "]": "{]}", '"': "''", "±": r"$\pm$",
    "−": "$-$", "–": "--", "·": r"$\cdot$", "…": r"\dots{}", "'": "'",
}  # fmt: skip


FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"


def latex(found: Answer, sections: Sequence[Section]) -> str:
    """The tables of all sections, each as a float with its legend as the caption."""
    said = " ".join(warnings(found))
    tables = [
        block._replace(note=" ".join(filter(None, [said, block.note or block.name])))
        for section in sections
        for block in section.blocks
        if isinstance(block, Table)
    ]
    head = f"% {_comment(found.question)}\n% Study {_comment(found.study)}. Needs \\usepackage{{booktabs,graphicx}}.\n"
    return head + "\n".join(table(block) for block in tables)


def table(block: Table) -> str:
    """A float with a booktabs table; marked rows are bold."""
    columns = "".join("l" if index in block.words else "r" for index in range(len(block.heading)))
    marks = [*block.marked, *[False] * (len(block.rows) - len(block.marked))]
    body = [_line(row, bold) for row, bold in zip(block.rows, marks, strict=True)]
    lines = [
        r"\begin{table}", r"\centering", r"\small", FIT, rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
        _line(block.heading, False), r"\midrule", *body, r"\bottomrule", r"\end{tabular}}",
        rf"\caption{{{escape(block.note or block.name)}}}", rf"\label{{tab:{_word(block.name)}}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; a character outside Latin-1 becomes a question mark."""
    return "".join(SIGNS.get(sign, sign if ord(sign) < 256 and sign.isprintable() else "?") for sign in text)


def _line(cells: Sequence[str], bold: bool) -> str:
    # "{}" in front: a first cell in brackets would be an argument of the rule above it.
    escaped = [escape(cell) or "{}" for cell in cells]
    return " & ".join(rf"\textbf{{{cell}}}" if bold else cell for cell in escaped) + r" \\"


def _comment(text: str) -> str:
    return " ".join(text.split())


def _word(name: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in name)
