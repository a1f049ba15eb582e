"""Reports on part of a study, or on several: which arms are compared, and what the choice does to the claims."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from absld_search.core.results import TABLES, Tables
from absld_search.search import fronts
from absld_search.words import UsageError, require_known
from analysis import pairs, standing
from analysis.answer import Answer, answer
from analysis.confirmed import headline
from analysis.loading import words_of

SAME = ("workload", "objectives", "classes", "eps", "confirm_seeds")  # else numbers of studies are no match


def folder(studies: Sequence[Path], compare: Sequence[str] | None) -> Path:
    """Where such a report goes, in the first study's folder; a part never replaces the whole."""
    others = "-".join(study.name for study in studies[1:])
    parts = [f"with-{others}" if others else "", "-".join(["compare", *compare]) if compare else ""]
    chosen = [_safe(part) for part in parts if part]
    return Path("report", *chosen)


def _safe(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_.+" else "-" for sign in name)[:150]


def compared(tables: Tables, arms: Sequence[str]) -> Answer:
    """The answer about two arms: the second minus the first, corrected for all pairs that could have been picked.

    It is made from the tables of these two, as the figures are: both lead with the strongest attack that the two share.
    Raises: UsageError where an arm is not one of the study's, or both are the same.
    """
    first, second = _known(tables, arms)
    shown = restricted(tables, arms)
    number = len(pairs.family(tables.facts["arms"], first, second))
    found = answer(shown, pairs.compare(tables, first, second, headline(shown)), number)
    return replace(
        found,
        caveats=[_picked(tables, first, second, number), *found.caveats],
        notices=standing.notices(tables),  # that the study runs, whichever of its arms are shown
    )


def _picked(tables: Tables, first: str, second: str, number: int) -> str:
    known = tables.facts["arms"]
    reference = known[0]
    text = f"Two of {len(known)} arms were picked for this report; p is corrected for "
    if reference in (first, second):
        return f"{text}the {number} comparison(s) with {reference} that were planned."
    return (
        f"{text}all {number} pairs of arms. The study compares with {reference}: a pair that was picked after its "
        "numbers were seen proves less than its p says."
    )


def restricted(tables: Tables, arms: Sequence[str]) -> Tables:
    """The tables of these arms alone, in this order, for figures and tables."""
    trials = tables.trials.filter(pc.field("arm").isin(list(arms)))
    configs = trials["config"].combine_chunks()
    trainings = tables.trainings.filter(pc.field("config").isin(configs))
    return replace(tables, facts={**tables.facts, "arms": list(arms)}, trials=trials, trainings=trainings)


def _known(tables: Tables, arms: Sequence[str]) -> tuple[str, str]:
    for arm in arms:
        require_known("--compare arm", arm, tables.facts["arms"])
    first, second = arms
    if first == second:
        raise UsageError(f"--compare arm {first!r} is named twice; name two different ones.")
    return first, second


def merged(studies: Sequence[Tables]) -> Tables:
    """The arms of several studies as those of one, named STUDY/ARM; one study stays as it is.

    Raises: UsageError that names the field in which their numbers could not be compared.
    """
    first, *others = studies
    if not others:
        return first
    names = [study.facts["study"] for study in studies]
    if len(set(names)) < len(names):
        raise UsageError(f"STUDY: two of these studies have one name: {', '.join(names)}")
    for other in others:
        _comparable(first.facts, other.facts)
    named = [_named(study) for study in studies]
    long = [_union([getattr(study, name) for study in named]) for name in TABLES[1:]]
    facts = _facts(named)
    return Tables(facts, _joint(pa.concat_tables([study.trials for study in named]), facts["objectives"]), *long)


def _comparable(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises: UsageError that names what differs; what a study of an older program does not tell counts as equal."""
    names = f"{other['study']} and {first['study']}"
    for field in SAME:
        if other.get(field) != first.get(field):
            raise UsageError(
                f"{field}: {names} differ in it, so their numbers cannot be compared: {other.get(field)} and "
                f"{first.get(field)}"
            )
    if None not in (first.get("data"), other.get("data")) and _content(first["data"]) != _content(other["data"]):
        raise UsageError(f"data: {names} were made on different data, so their numbers cannot be compared")
    ours, others = first.get("teachers", {}), other.get("teachers", {})
    for name in ours.keys() & others.keys():
        if ours[name]["sha256"] != others[name]["sha256"]:
            raise UsageError(
                f"teachers: {name} has other weights in {other['study']} ({others[name]['sha256'][:12]}) than in "
                f"{first['study']} ({ours[name]['sha256'][:12]}), so their numbers cannot be compared"
            )


def _content(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a data set but how it lay on disk."""
    return {name: value for name, value in data.items() if name != "layout"}


def _joint(trials: pa.Table, objectives: Mapping[str, str]) -> pa.Table:
    """The trials with the joint front of all of them; each study knew its own alone."""
    values = np.column_stack([trials[f"objective/{name}"].to_numpy() for name in objectives])
    complete = np.array([state == "COMPLETE" for state in trials["state"].to_pylist()], dtype=bool)
    values[~complete] = np.nan  # which is on no front
    front = pa.array(fronts.non_dominated(values, list(objectives.values())))
    return trials.set_column(trials.column_names.index("pareto"), trials.schema.field("pareto"), front)


def _named(tables: Tables) -> Tables:
    """The tables with each arm and trial named after its study, and what only this study fixed in its arms' words."""
    study, facts = tables.facts["study"], tables.facts
    words = {arm: words_of(facts, arm) for arm in facts["arms"]}
    changed = {
        "arms": [f"{study}/{arm}" for arm in facts["arms"]],
        "arm_words": {f"{study}/{arm}": found for arm, found in words.items()},
    }
    trials = tables.trials
    for column in ("arm", "trial"):
        named = pc.binary_join_element_wise(study, trials[column], "/")
        trials = trials.set_column(trials.column_names.index(column), trials.schema.field(column), named)
    return replace(tables, facts={**facts, **changed}, trials=trials)


def _facts(studies: Sequence[Tables]) -> dict[str, Any]:
    facts = [study.facts for study in studies]
    words = {arm: found for each in facts for arm, found in each["arm_words"].items()}
    shared = dict(set.intersection(*(set(found.items()) for found in words.values())))
    own = {arm: {name: value for name, value in found.items() if name not in shared} for arm, found in words.items()}
    return {
        **facts[0],
        "study": " + ".join(each["study"] for each in facts),
        "question": " / ".join(dict.fromkeys(each["question"] for each in facts)),
        "arms": [arm for each in facts for arm in each["arms"]],
        "constraints": _constraints(facts),
        "teachers": {name: found for each in facts for name, found in each.get("teachers", {}).items()},
        "samplers": list(dict.fromkeys(name for each in facts for name in each.get("samplers", []))),
        "code": _codes(facts),
        "fixed": shared,
        "arm_words": own,
        "command": "; ".join(dict.fromkeys(each.get("command", "") for each in facts)),
    }


def _constraints(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What every trial had to meet; where studies demanded different things, each with the study that did."""
    demanded = {each["study"]: each.get("constraints", []) for each in facts}
    first, *others = demanded.values()
    if all(other == first for other in others):
        return list(first)
    return [f"{said} (in {study})" for study, of_study in demanded.items() for said in of_study]


def _codes(facts: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Method -> every code that it was in one of the studies."""
    found: dict[str, list[str]] = {}
    for each in facts:
        for name, digests in each.get("code", {}).items():
            found[name] = list(dict.fromkeys([*found.get(name, []), *digests]))
    return found


def _union(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows of all tables; of a training that several studies hold, those of the first alone."""
    found, seen = [], pa.array([], pa.string())
    for table in tables:
        found.append(table.filter(pc.invert(pc.is_in(table["training"], value_set=seen))))
        seen = pa.concat_arrays([seen, pc.unique(table["training"])])
    return pa.concat_tables(found)
