"""HTML documents of a study. They stand alone: nothing is loaded, and every word that somebody chose is escaped."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import pyarrow.compute as pc
from matplotlib.figure import Figure

from absld_search.core.results import Tables
from analysis import cells, figures
from analysis.answer import Answer

CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1b1f24;
       background: #fff; max-width: 60rem; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #d8dee4; padding-bottom: .25rem; }
p.meta { color: #57606a; margin: 0; }
.answer { font-size: 1.06rem; background: #f1f6fb; border-left: 4px solid #0072b2; padding: .3rem 1.1rem;
          margin: 1.4rem 0; overflow-wrap: anywhere; }
.answer p { margin: .6rem 0; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .38rem .5rem; border-bottom: 1px solid #e4e8ec; white-space: nowrap; }
th { white-space: normal; }
th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 4.5rem; }
thead th { border-bottom: 2px solid #b6c0ca; vertical-align: bottom; }
tr.marked td { background: #eaf6f0; font-weight: 600; }
.note { color: #57606a; font-size: .86rem; }
.missing { color: #8a3b00; }
figure { margin: 1.6rem 0; }
svg { width: 100%; height: auto; }
code { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #f3f5f7;
       padding: .1em .35em; border-radius: 4px; overflow-wrap: anywhere; }
li { margin: .35rem 0; overflow-wrap: anywhere; }
"""


def answer_page(tables: Tables, found: Answer) -> str:
    """The report: answer, arms, comparisons, figures, caveats, and how to run it again."""
    return _document(
        found.question,
        [
            f'<p class="meta">Study <b>{escape(found.study)}</b> · workload <b>{escape(found.workload)}</b></p>',
            f'<div class="answer">{"".join(f"<p>{escape(verdict)}</p>" for verdict in found.verdicts)}</div>',
            "<h2>Arms</h2>",
            _table(*cells.rows(found), words=(0, 1)),
            *[_missing(f"{row.arm}: {row.reason}") for row in found.rows if row.reason],
            _note(cells.legend(found)),
            *_comparisons(found),
            *_section("The worst classes", cells.worst(found), cells.worst_legend(found)),
            *_section("Classes that tell arms apart", cells.classes(found), cells.classes_legend(found), words=(0, 1)),
            *_teachers(found),
            "<h2>Chosen parameters</h2>",
            _list(cells.choice(row) for row in found.rows if row.trial),
            "<h2>Figures</h2>",
            _svg(figures.pareto_front(tables), "Pareto fronts of the search"),
            _svg(figures.class_bars(tables), "Robust accuracy by class"),
            _svg(figures.temperatures(tables), "Temperatures of the classes"),
            "<h2>What the answer rests on</h2>",
            _list(found.caveats),
            *_reproduction(tables.facts),
        ],
    )


def front_page(tables: Tables) -> str:
    """A small page: the fronts of the search as a figure, and their trials as a table."""
    facts = tables.facts
    on_front = tables.trials.filter(pc.field("pareto") | pc.field("pareto_arm")).to_pylist()
    objectives = list(facts["objectives"])
    on_front.sort(key=lambda row: (not row["pareto"], -(row[f"objective/{objectives[0]}"] or 0)))
    heading = ["trial", "front", "chosen", *[cells.heading(name) for name in objectives]]
    rows = [_front_row(row, objectives) for row in on_front]
    return _document(
        f"Pareto front of {facts['study']}",
        [
            f'<p class="meta">{escape(facts["question"])}</p>',
            _svg(figures.pareto_front(tables), "Pareto fronts of the search"),
            _table(
                [*heading, "parameters"],
                rows,
                words=(0, 1, 2, len(heading)),
                marked=[row["pareto"] for row in on_front],
            ),
            _note(
                "Values of the search on val; green: on the joint front of all arms. A front of "
                "values that were selected on is optimistic; the confirm stage on test is what the answer rests on."
            ),
        ],
    )


def _front_row(row: Mapping[str, Any], objectives: Sequence[str]) -> list[str]:
    values = [cells.number(name, row[f"objective/{name}"]) for name in objectives]
    front = "all arms" if row["pareto"] else "own arm"
    return [row["trial"], front, "yes" if row["chosen"] else "", *values, cells.parameters(json.loads(row["params"]))]


def _document(title: str, body: Iterable[str]) -> str:
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The page needs no script and no connection; a browser shall refuse both.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>"
    )
    main = "\n".join([f"<h1>{escape(title)}</h1>", *body])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{main}\n</body>\n</html>\n'


def _comparisons(found: Answer) -> list[str]:
    if not found.comparisons:
        return []
    marked = [comparison.decided for comparison in found.comparisons]
    return [
        f"<h2>Differences to {escape(found.comparisons[0].against)}</h2>",
        _table(*cells.comparisons(found), words=(0, 1), marked=marked),
        _note(" ".join(filter(None, [cells.COMPARISON_LEGEND, found.power]))),
    ]


def _section(
    title: str, table: tuple[list[str], list[list[str]]], legend: str, words: Sequence[int] = (0,)
) -> list[str]:
    """A heading, a table and its legend; nothing where the table has no row."""
    return [f"<h2>{escape(title)}</h2>", _table(*table, words=words), _note(legend)] if table[1] else []


def _teachers(found: Answer) -> list[str]:
    if not found.teachers:
        return []
    return ["<h2>Teachers</h2>", _table(*cells.teachers(found), words=(0, 1)), _note(cells.TEACHER_LEGEND)]


def _reproduction(facts: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    command = f"<p><code>{escape(facts['command'])}</code></p>" if facts.get("command") else ""
    return ["<h2>Run it again</h2>", command, _note(versions)]


def _table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int], marked: Sequence[bool] = ()
) -> str:
    """A table; the columns at the indices `words` hold words, the others numbers, and marked rows stand out."""

    def line(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="text"' if index in words else "" for index in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    marks = [' class="marked"' if index < len(marked) and marked[index] else "" for index in range(len(rows))]
    body = "\n".join(f"<tr{mark}>{line('td', row)}</tr>" for mark, row in zip(marks, rows, strict=True))
    head = f"<thead><tr>{line('th', heading)}</tr></thead>"
    return f'<div class="wide"><table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _list(items: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(item)}</li>" for item in items) + "\n</ul>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>'


def _svg(figure: Figure | None, label: str) -> str:
    """A figure as inline SVG, letters as paths: it looks the same with any fonts."""
    if figure is None:
        return _note(f"{label}: nothing to draw.")
    stream = io.StringIO()
    # A salt of its own keeps the ids of one figure apart from those of the next, and equal from run to run.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": label, "svg.id": label.replace(" ", "-")}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = stream.getvalue()
    drawing = drawing[drawing.index("<svg ") :].replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return f"<figure>\n{drawing}</figure>"
