"""`python -m analysis.tables STUDY_FOLDER`: the table of the ABSLD paper's layout, our arms beside reported numbers.

python -m analysis.tables runs/STUDY
python -m analysis.tables runs/STUDY --format latex --to table.tex

Clean, FGSM, PGD, CW and AA, each with average, worst class and NSD, in per cent; and the answer's own attack, where it
is none of these. Reported numbers come from reported.json beside this file, which names each one's source and how it
was read. What is not known is a dash.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from absld_search import endings
from absld_search.core.attack_names import ATTACKS, KINDS
from absld_search.core.results import Tables
from absld_search.words import UsageError
from analysis import standing
from analysis.answer import smoke
from analysis.confirmed import headline
from analysis.latex import FIT, escape
from analysis.loading import load
from analysis.paper_rows import DASH, PARTS, Row, dataset_of, own_rows, reported, told
from analysis.writing import write_text

COLUMNS = {"Clean": "clean", "FGSM": "fgsm", "PGD": "pgd20", "CW": "cw20", "AA": "aa"}  # head -> attack


@dataclass(frozen=True)
class Table:
    """Rows under their columns, and what has to be said below them."""

    title: str
    columns: Mapping[str, str]  # head -> attack
    rows: list[Row]
    notes: list[str]


def table(tables: Tables, with_reported: bool = True) -> Table:
    """The arms of a study, and what others reported for its data set."""
    dataset = dataset_of(tables)
    ours = own_rows(tables)
    others = reported(dataset) if with_reported else []
    columns = dict(COLUMNS)
    (strongest,) = [attack for attack, kind in KINDS.items() if kind == headline(tables)]
    if strongest not in columns.values():
        columns[ATTACKS[strongest].short] = strongest
    title = f"Study {tables.facts['study']}: {tables.facts['question']}"
    return Table(title, columns, [*ours, *others], _notes(tables, ours, others, columns.values(), with_reported))


def markdown(found: Table) -> str:
    """The table as Markdown: one head a column, since Markdown cannot span them."""
    heads = ["Method", "Model", "Source", *(f"{head} {part}" for head in found.columns for part in PARTS)]
    lines = [f"**{_plain(found.title)}**", "", _line(heads), _line(["---"] * len(heads))]
    lines += [
        _line([_plain(row.method), row.model, row.source, *_cells(row, found, " ± ", DASH)]) for row in found.rows
    ]
    return "\n".join([*lines, "", *(f"* {_plain(note)}" for note in found.notes)]) + "\n"


def latex(found: Table) -> str:
    """The table as LaTeX; it needs \\usepackage{booktabs,graphicx}."""
    spans = " & ".join(rf"\multicolumn{{3}}{{c}}{{{escape(head)}}}" for head in found.columns)
    rules = "".join(rf"\cmidrule(lr){{{first}-{first + 2}}}" for first in range(3, 3 + 3 * len(found.columns), 3))
    parts = " & ".join(escape(part) for _ in found.columns for part in PARTS)
    body = [" & ".join([escape(row.method), escape(row.model), *_cells(row, found, r" $\pm$ ", "--")]) + r" \\"
            for row in found.rows]  # fmt: skip
    of_ours = sum(row.source == "ours" for row in found.rows)
    body = [*body[:of_ours], *([r"\midrule"] if of_ours < len(body) else []), *body[of_ours:]]
    return "\n".join([
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}[t]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(' '.join([found.title, *found.notes]))}}}",
        FIT,
        rf"\begin{{tabular}}{{ll{'ccc' * len(found.columns)}}}",
        r"\toprule",
        rf"& & {spans} \\ {rules}",
        rf"Method & Model & {parts} \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table*}",
        "",
    ])  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY_FOLDER")
@click.option("--format", "how", type=click.Choice(["md", "latex"]), default="md", show_default=True)
@click.option("--to", type=click.Path(path_type=Path), help="Write it there.  [default: to the terminal]")
@click.option("--ours-only", is_flag=True, help="Without the numbers that others reported.")
def main(study: Path, how: str, to: Path | None, ours_only: bool) -> None:
    """The study's arms in the layout of the ABSLD paper's tables, beside what others reported."""
    with endings.said():
        try:
            found = table(load(study), with_reported=not ours_only)
        except FileNotFoundError as error:
            raise UsageError(f"study: {error}.") from None
        text = latex(found) if how == "latex" else markdown(found)
        if to is None:
            click.echo(text, nl=False)
            sys.exit(0)
        write_text(to, text)
        click.echo(str(to))


def _cells(row: Row, found: Table, between: str, dash: str) -> Iterable[str]:
    return [
        between.join(row.cell(attack, part)) or dash for attack in found.columns.values() for part in PARTS.values()
    ]


def _notes(
    tables: Tables, ours: list[Row], others: list[Row], attacks: Collection[str], with_reported: bool
) -> list[str]:
    seeds = sorted({row.seeds for row in ours if row.seeds})
    span = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0]) if seeds else "no"
    first = (
        f"Ours: {tables.facts['workload']} on test, mean and standard deviation over {span} seeds; "
        "worst: mean of the lowest class; NSD: standard deviation / mean of the class accuracies. PGD and CW have 20 "
        "steps. A dash: not measured, or not known."
    )
    said = [*smoke(tables.facts["workload"]), *standing.notices(tables), first, *_undefined(ours, attacks)]
    if with_reported and not others:
        said.append(f"No numbers of others are on file for {dataset_of(tables) or tables.facts['workload']}.")
    said += told(dict.fromkeys(row.source for row in others))
    return said + (["Other papers' models, budgets and selection differ: the rows are no ranking."] if others else [])


def _undefined(ours: list[Row], attacks: Collection[str]) -> list[str]:
    """Where a mean is over fewer seeds than the row: the NSD of a seed without a hit is not defined."""
    return [
        f"NSD of {row.method} under {ATTACKS[attack].short}: of {n} of {seeds} seeds; the others have no hit."
        for row in ours
        for attack, (n, seeds) in row.defined.items()
        if attack in attacks and 0 < n < seeds
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\`*_[]|<#":
        text = text.replace(sign, "\\" + sign)
    return text


if __name__ == "__main__":
    main()
