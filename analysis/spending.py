"""What a study cost, arm by arm, and what its search had reached for how much of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core.results import Tables
from absld_search.search import fronts
from analysis import repeats
from analysis.loading import WORST, judged_trainings, seconds_of

Array = NDArray[np.float64]
HOUR = 3600.0
ENDED = ("COMPLETE", "FAILED")
VOLUMES = 60  # points at which a hypervolume of three and more objectives is computed, for each costs seconds


class Cost(NamedTuple):
    """Of one arm: complete trials, trainings that ended, their epochs, and hours of training, by stage."""

    arm: str
    trials: int
    trainings: int
    epochs: int
    search: float  # hours, with rungs and races; nan where it is not known of each complete training what it took
    confirm: float  # hours, likewise


class Course(NamedTuple):
    """An arm's search, complete trial by complete trial: hours spent, and what had been reached by then; (N,) each."""

    hours: Array
    volume: Array  # nan where it was not computed
    best: Array  # the best worst class so far; nan before the first that is known


def costs(tables: Tables) -> list[Cost]:
    """One row an arm. A training that two arms share counts in both, for each would have needed it."""
    rows = tables.trainings.to_pylist()
    by_config: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_config.setdefault(row["config"], []).append(row)
    trials = tables.trials.select(["arm", "config", "state"]).to_pylist()
    return [_cost(arm, [trial for trial in trials if trial["arm"] == arm], by_config) for arm in tables.facts["arms"]]


def _cost(arm: str, trials: list[dict[str, Any]], by_config: Mapping[str, list[Mapping[str, Any]]]) -> Cost:
    ended = [row for config in {t["config"] for t in trials} for row in by_config.get(config, ())]
    ended = [row for row in ended if row["state"] in ENDED]
    confirm = sum(_hours(row) for row in ended if row["stage"] == "confirm")
    search = sum(_hours(row) for row in ended if row["stage"] != "confirm")
    complete = sum(trial["state"] == "COMPLETE" for trial in trials)
    return Cost(arm, complete, len(ended), sum(row["epochs"] for row in ended), search, confirm)


def _hours(training: Mapping[str, Any]) -> float:
    """Hours of a training; nan for a complete one of which nobody knows them."""
    seconds = seconds_of(training)
    if seconds is None:
        return float("nan") if training["state"] == "COMPLETE" else 0.0
    return seconds / HOUR


def courses(tables: Tables) -> dict[str, Course]:
    """Arm -> its search against the hours of training it had cost.

    Arms without a complete trial are absent, and those of which not all hours are known. Trials count in the order of
    their numbers; one that repeats a configuration costs nothing. Hours are of trainings, so two that run at once cost
    two; those of trials that failed or were stopped on a rung count too.
    """
    spent: dict[str, float] = {}
    for row in tables.trainings.filter(pc.field("stage") != "confirm").to_pylist():
        spent[row["config"]] = spent.get(row["config"], 0.0) + _hours(row)
    worst = _worst(tables)
    found = {arm: _course(tables, arm, spent, worst) for arm in tables.facts["arms"]}
    return {arm: course for arm, course in found.items() if course.hours.size and np.isfinite(course.hours).all()}


def reference(tables: Tables) -> list[float]:
    """The corner that hypervolumes are measured from: 0 of what is maximised, 1 of what is minimised."""
    return [0.0 if way == "max" else 1.0 for way in tables.facts["objectives"].values()]


def _worst(tables: Tables) -> dict[str, float]:
    """Configuration -> the worst class of its complete trial, on val, as a mean over the seeds of search and race."""
    if WORST in tables.facts["objectives"]:
        complete = tables.trials.filter(pc.field("state") == "COMPLETE").to_pylist()
        return {trial["config"]: trial[f"objective/{WORST}"] for trial in complete}
    judged = judged_trainings(tables.trainings)
    measured = repeats.of_metric(tables, judged["training"].to_pylist(), WORST)
    found: dict[str, list[float]] = {}
    for row in judged.to_pylist():
        if row["training"] in measured:
            found.setdefault(row["config"], []).append(measured[row["training"]])
    return {config: float(np.mean(values)) for config, values in found.items()}


def _course(tables: Tables, arm: str, spent: Mapping[str, float], worst: Mapping[str, float]) -> Course:
    trials = tables.trials.filter(pc.field("arm") == arm).sort_by("number").to_pylist()
    left = dict(spent)  # a configuration that is proposed again is not trained again
    hours = np.cumsum([left.pop(trial["config"], 0.0) for trial in trials])
    complete = np.array([trial["state"] == "COMPLETE" for trial in trials], dtype=bool)
    names = [f"objective/{name}" for name in tables.facts["objectives"]]
    values = np.array([[t[name] for name in names] for t in trials if t["state"] == "COMPLETE"], dtype=float)
    values = values.reshape(-1, len(names))
    directions = list(tables.facts["objectives"].values())
    best = np.array([worst.get(trial["config"], np.nan) for trial in trials if trial["state"] == "COMPLETE"])
    best = np.fmax.accumulate(best) if len(best) else np.empty(0)
    return Course(
        hours[complete] if len(trials) else np.empty(0), _volumes(values, directions, reference(tables)), best
    )


def _volumes(values: Array, directions: list[str], corner: list[float]) -> Array:
    """Hypervolume of the first n points, for every n at which the front has grown (of many, a sample), (N,)."""
    front, grown = fronts.Front(directions), []
    members: list[list[int]] = []
    for index, point in enumerate(values):
        if front.add(tuple(point)):
            grown.append(index)
            members.append(list(front.members))
    found = np.full(len(values), np.nan)
    if not grown:
        return found
    most = VOLUMES if len(directions) > 2 else 10 * VOLUMES
    for place in np.unique(np.linspace(0, len(grown) - 1, min(most, len(grown))).astype(int)):
        found[grown[place]] = fronts.hypervolume(values[members[place]], directions, corner)
    return found
