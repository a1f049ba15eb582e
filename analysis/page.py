"""The pages of a study: the report, and a small one of its front alone."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow.compute as pc
from matplotlib.figure import Figure

from absld_search.core.results import Tables
from analysis import cells, figures, html
from analysis.answer import Answer
from analysis.contents import Block, Bullets, Picture, Section, Table, Words

ROWS_SHOWN = 100  # of the front's page


def answer_page(found: Answer, sections: Sequence[Section], drawn: Mapping[str, Figure]) -> str:
    """The report: question, answer, and the sections of `contents`."""
    return html.document(
        found.question,
        [
            f'<p class="meta">Study <b>{escape(found.study)}</b> · workload <b>{escape(found.workload)}</b></p>',
            *([f'<div class="notice">{"".join(map(html.paragraph, found.notices))}</div>'] if found.notices else []),
            f'<div class="answer">{"".join(map(html.paragraph, found.verdicts))}</div>',
            _menu(sections),
            *[_section(index, section, drawn) for index, section in enumerate(sections, start=1)],
        ],
    )


def _menu(sections: Sequence[Section]) -> str:
    links = [f'<a href="#s{index}">{escape(s.title)}</a>' for index, s in enumerate(sections, start=1)]
    return f"<nav>{' '.join(links)}</nav>"


def _section(index: int, section: Section, drawn: Mapping[str, Figure]) -> str:
    heading = f'<h2 id="s{index}">{escape(section.title)}</h2>'
    return "\n".join([heading, *(_block(block, drawn) for block in section.blocks)])


def _block(block: Block, drawn: Mapping[str, Figure]) -> str:
    if isinstance(block, Table):
        note = html.paragraph(block.note, "note") if block.note else ""
        return html.table(block.heading, block.rows, block.words, block.marked) + note
    if isinstance(block, Picture):
        drawing = figures.FIGURES[block.name]
        return html.drawing(drawn.get(block.name), drawing.title, drawing.legend)
    if isinstance(block, Bullets):
        return html.bullets(block.items)
    assert isinstance(block, Words)
    return f"<p><code>{escape(block.text)}</code></p>" if block.kind == "code" else html.paragraph(*block)


def front_page(tables: Tables, front: Figure) -> str:
    """A small page: the fronts of the search as a figure, and their trials as a table."""
    facts = tables.facts
    on_front = tables.trials.filter(pc.field("pareto") | pc.field("pareto_arm")).to_pylist()
    objectives = list(facts["objectives"])
    on_front.sort(key=lambda row: (not row["pareto"], -(row[f"objective/{objectives[0]}"] or 0)))
    shown = on_front[:ROWS_SHOWN]
    heading = ["trial", "front", "chosen", *[cells.heading(name) for name in objectives], "parameters"]
    rows = [_front_row(row, objectives) for row in shown]
    more = f" The first {len(shown)} of {len(on_front)} trials." if len(shown) < len(on_front) else ""
    return html.document(
        f"Pareto front of {facts['study']}",
        [
            f'<p class="meta">{escape(facts["question"])}</p>',
            html.drawing(front, "Pareto fronts of the search"),
            html.table(heading, rows, words=(0, 1, 2, len(heading) - 1), marked=[row["pareto"] for row in shown]),
            html.paragraph(
                "Values of the search on val; green: on the joint front of all arms. A front of "
                "values that were selected on is optimistic; the confirm stage on test is what the answer rests on."
                + more,
                "note",
            ),
        ],
    )


def _front_row(row: Mapping[str, Any], objectives: Sequence[str]) -> list[str]:
    values = [cells.number(name, row[f"objective/{name}"]) for name in objectives]
    front = "all arms" if row["pareto"] else "own arm"
    return [row["trial"], front, "yes" if row["chosen"] else "", *values, cells.parameters(json.loads(row["params"]))]
