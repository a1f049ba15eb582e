"""What a report holds, in its order, as data: the page, the Markdown and the tables of a paper are made from it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absld_search.core.results import Tables
from analysis import cells, lengths, search_cells, standing
from analysis.answer import Answer
from analysis.importances import too_few


class Table(NamedTuple):
    """Rows of short strings; the columns at the indices `words` hold words, and marked rows stand out."""

    name: str
    heading: list[str]
    rows: list[list[str]]
    words: Sequence[int] = (0,)
    marked: Sequence[bool] = ()
    note: str = ""


class Picture(NamedTuple):
    """One of `figures.FIGURES`, by its name."""

    name: str


class Words(NamedTuple):
    """A paragraph; kind: "", "note", "missing" or "code"."""

    text: str
    kind: str = ""


class Bullets(NamedTuple):
    """A list."""

    items: list[str]


Block = Table | Picture | Words | Bullets


class Section(NamedTuple):
    """A heading and what stands below it; without any block the section is left out."""

    title: str
    blocks: list[Block]


def contents(tables: Tables, found: Answer) -> list[Section]:
    """The sections of a report, those with something to show."""
    sections = [
        Section("Pareto fronts", [Picture("pareto_front")]),
        Section("Arms", [*_arms(found), *_missing(found)]),
        Section("Differences", _differences(found)),
        Section("Short trainings against long ones", _lengths(tables)),
        Section("The worst classes", _table("worst", cells.worst(found), note=cells.worst_legend(found))),
        Section("Robust accuracy by class", [Picture("class_bars"), *_classes(found)]),
        Section("Temperatures", [Picture("temperatures")]),
        Section("Reached for the cost", [Picture("spending")]),
        Section("Parameters", [Picture("parallel_coordinates"), *_choices(found)]),
        Section("Importances", [Picture("importances"), *_importance_notes(tables)]),
        Section("Early stopping", _rungs(tables)),
        Section("Failures", _failures(tables)),
        Section("Cost", _table("costs", search_cells.costs(tables), note=search_cells.COST_LEGEND)),
        Section("Places on the front", _places(tables)),
        Section("Teachers", _table("teachers", cells.teachers(found), words=(0, 1), note=cells.TEACHER_LEGEND)),
        Section("What the answer rests on", [Bullets(found.caveats)]),
        Section("Run it again", _reproduction(tables.facts)),
    ]
    return [section for section in sections if section.blocks]


def _table(name: str, made: tuple[list[str], list[list[str]]], **more: Any) -> list[Block]:
    return [Table(name, *made, **more)] if made[1] else []


def _arms(found: Answer) -> list[Block]:
    return [Table("arms", *cells.rows(found), words=(0, 1), note=cells.legend(found))]


def _missing(found: Answer) -> list[Block]:
    return [Words(f"{row.arm}: {row.reason}", "missing") for row in found.rows if row.reason]


def _differences(found: Answer) -> list[Block]:
    if not found.comparisons:
        return []
    marked = [comparison.decided for comparison in found.comparisons]
    note = " ".join(filter(None, [cells.COMPARISON_LEGEND, found.power]))
    return [Table("differences", *cells.comparisons(found), words=(0, 1), marked=marked, note=note)]


def _lengths(tables: Tables) -> list[Block]:
    made = _table("lengths", lengths.cells(tables), note=lengths.LEGEND)
    asked = bool(lengths.lengths(tables.facts))
    return made or ([Words(f"The arms have fewer than {lengths.LEAST} settings in common.", "note")] if asked else [])


def _classes(found: Answer) -> list[Block]:
    made = _table("classes", cells.classes(found), words=(0, 1), note=cells.classes_legend(found))
    return [Words("Classes that tell arms apart:"), *made] if made else []


def _choices(found: Answer) -> list[Block]:
    chosen = [cells.choice(row) for row in found.rows if row.trial]
    return [Words("Chosen parameters:"), Bullets(chosen)] if chosen else []


def _importance_notes(tables: Tables) -> list[Block]:
    few = too_few(tables)
    return [Words(f"Not shown: {'; '.join(few)}.", "note")] if few else []


def _rungs(tables: Tables) -> list[Block]:
    if not standing.rungs(tables):
        return [Words("No rungs: every trial was trained to its end.", "note")]
    return [Picture("rungs"), *_table("rungs", search_cells.rungs(tables))]


def _failures(tables: Tables) -> list[Block]:
    counted = Table("states", *search_cells.states(tables), note="Trials by how they ended.")
    failed = _table("failures", search_cells.failures(tables), words=(0, 1, 3, 4))
    return [counted, *(failed or [Words("Nothing failed.", "note")])]


def _places(tables: Tables) -> list[Block]:
    made = search_cells.places(tables)
    if made[1]:
        return _table("places", made, note=search_cells.PLACES_LEGEND)
    return [
        Words(
            "No race was run (--race), and the search saw one seed of each trial: how sure a place is, is not known.",
            "note",
        )
    ]


def _reproduction(facts: Mapping[str, Any]) -> list[Block]:
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    command: list[Block] = [Words(facts["command"], "code")] if facts.get("command") else []
    return [*command, Words(versions, "note")]
