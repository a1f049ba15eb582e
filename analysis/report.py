"""The report of a study, finished or running: one page that stands alone, Markdown, and figures and tables for a paper.

python -m analysis.report runs/STUDY
python -m analysis.report runs/STUDY --compare dual product --format latex
python -m analysis.report runs/FIRST runs/SECOND          # their arms in one report

It writes `index.html`, `answer.md`, `answer.json`, `tables.tex`, `front.html`, `front.png`, `csv/` and `figures/` (PNG
and PDF) into `report/` in the study's folder, and prints the answer in the format asked for.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absld_search import endings
from absld_search.core.results import Tables, write_json
from absld_search.words import UsageError
from analysis import cells, choosing, figures, latex, loading, markdown, page, sheets
from analysis.answer import Answer, answer
from analysis.contents import contents
from analysis.drawing import save
from analysis.terminal import table as table
from analysis.writing import write_text

FORMATS = ("html", "md", "latex", "csv")


def write(study_folder: Path | str, papers: bool = False) -> Answer:
    """Write a study's `report/` and return its answer. `papers`: with `figures/`, which takes a few seconds more.

    Raises: FileNotFoundError where the folder is no study or has no results.
    """
    tables = loading.load(study_folder)
    found = answer(tables)
    _write(tables, found, Path(study_folder) / "report", papers)
    return found


def _write(tables: Tables, found: Answer, report: Path, papers: bool) -> dict[str, str]:
    """Write everything; format -> what is printed for it."""
    sections, drawn = contents(tables, found), figures.drawn(tables)
    texts = {
        "html": f"{table(found)}\n\nreport: {report / 'index.html'}",
        "md": markdown.markdown(found, sections),
        "latex": latex.latex(found, sections),
    }
    numbers = sheets.sheets(tables, found)
    write_json(report / "answer.json", as_json(found))
    write_text(report / "answer.md", texts["md"])
    write_text(report / "tables.tex", texts["latex"])
    write_text(report / "index.html", page.answer_page(found, sections, drawn))
    write_text(report / "front.html", page.front_page(tables, drawn["pareto_front"]))
    for name, text in numbers.items():
        write_text(report / "csv" / f"{name}.csv", text)
    save(drawn["pareto_front"], report / "front.png")
    for name, figure in drawn.items() if papers else ():
        save(figure, report / "figures" / f"{name}.png")
        save(figure, report / "figures" / f"{name}.pdf")
    return texts | {"csv": numbers["arms"], "differences": numbers["differences"]}


def summary(found: Answer) -> str:
    """The answer and the table of arms as Markdown, for a place with little room."""
    said = [f"* {markdown.plain_markdown(verdict)}" for verdict in [*found.notices, *found.verdicts]]
    return "\n".join([*said, "", markdown.table(*cells.rows(found)), "", markdown.plain_markdown(cells.legend(found))])


def as_json(found: Answer) -> dict[str, Any]:
    """The answer as plain JSON values: fractions, each comparison with its verdict, null for what is not finite."""
    content = dataclasses.asdict(found) | {"sentence": found.sentence}
    for stored, comparison in zip(content["comparisons"], found.comparisons, strict=True):
        stored |= {"decided": comparison.decided, "general": comparison.general}
    finite: dict[str, Any] = _finite(content)
    return finite


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of one study, or of the arms of several, and print its answer; the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        tables = choosing.merged([loading.load(folder) for folder in asked.studies])
        found = choosing.compared(tables, asked.compare) if asked.compare else answer(tables)
        shown = choosing.restricted(tables, asked.compare) if asked.compare else tables
    except (FileNotFoundError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    place = asked.to or asked.studies[0] / choosing.folder(asked.studies, asked.compare)
    texts = _write(shown, found, place, papers=True)
    shown_as = "differences" if asked.format == "csv" and asked.compare else asked.format
    endings.shown(texts[shown_as].rstrip("\n"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write the report of a study.")
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="a study's folder, as runs/my-study")
    parser.add_argument(
        "--compare", nargs=2, metavar="ARM", help="these two arms alone; differences are the second minus the first"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="html",
        help="what is printed (all are written); csv: the arms, with --compare the differences",
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="where to write [default: report/ in the first study]")
    return parser


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    raise SystemExit(main())
