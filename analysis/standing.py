"""How far a study is: trials and trainings by state, failures by reason, rungs, and the race for the front."""

import re
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core.results import Tables
from absld_search.search import constraints, fronts, racing
from analysis import new_images, repeats
from analysis.loading import judged_trainings, repeated_trainings
from analysis.sentences import limit

Array = NDArray[np.float64]
CONTENDERS = 300
OPEN = ("WAITING", "RUNNING")
NUMBERS = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?")


class Failure(NamedTuple):
    """Trainings of one arm and stage that failed for one reason; `example` is the first of them."""

    arm: str
    stage: str
    reason: str
    times: int
    example: str


class Rung(NamedTuple):
    """How many trials of an arm were trained for so many epochs in the search; `ended`: and no longer."""

    arm: str
    epochs: int
    trials: int
    ended: int


class Place(NamedTuple):
    """A trial with several seeds: how many, and how probable it is that its true mean is on its arm's front, and on the
    joint; the latter also for new images, nan where their verdicts are not at hand."""

    trial: str
    seeds: int
    own: float
    joint: float
    images: float


def notices(tables: Tables) -> list[str]:
    """What a reader must know before any number: the study runs, is empty, or has nothing to choose from; else []."""
    trials, trainings = tables.trials["state"].to_pylist(), tables.trainings["state"].to_pylist()
    said = []
    if waiting := sum(state in OPEN for state in (*trials, *trainings)):
        left = sum(state in OPEN for state in trainings)
        said.append(
            f"This study is not finished: {left} of {len(trainings)} trainings wait or run ({waiting} trials and "
            "trainings in all). Every number here may still change."
        )
    if not trials:
        said.append("This study is empty: no trial has begun, so there is nothing to answer from.")
    elif "COMPLETE" not in trials and "INFEASIBLE" in trials:
        said.append(_infeasible(tables, yet=" yet" if waiting else ""))
    elif "COMPLETE" not in trials and "FAILED" in trials:
        failed = trials.count("FAILED")
        said.append(f"No trial is complete; {failed} of {len(trials)} failed. The reasons stand under Failures.")
    elif "COMPLETE" not in trials:
        said.append(f"No trial is complete yet, of {len(trials)}.")
    return said


def _infeasible(tables: Tables, yet: str) -> str:
    """No trial meets what was demanded: by how many each demand is missed, and how far the nearest got."""
    trials = tables.trials.select(["state", "reason"]).to_pylist()
    reasons = [row["reason"] for row in trials if row["state"] == "INFEASIBLE"]
    failed = sum(row["state"] == "FAILED" for row in trials)
    found = constraints.shortfalls(reasons)
    missed = [
        f"{count} miss {limit(said)} on val{'' if nearest is None else f', the nearest of them with {nearest:.4g}'}"
        for said, (count, nearest) in found.items()
    ]
    demanded = "the constraint" if len(found) == 1 else "every constraint"
    counted = f"{len(reasons)} of {len(trials)} are infeasible{f' and {failed} failed' if failed else ''}"
    return f"No trial meets {demanded}{yet}: {counted}. {'; '.join(missed)}."


def failures(tables: Tables) -> list[Failure]:
    """Most frequent first; reasons that differ in nothing but numbers are one."""
    arms = {row["config"]: row["arm"] for row in tables.trials.select(["config", "arm"]).to_pylist()}
    counts: Counter[tuple[str, str, str]] = Counter()
    first: dict[tuple[str, str, str], tuple[str, str]] = {}
    seen = set()
    for row in tables.trainings.filter(pc.field("state") == "FAILED").to_pylist():
        seen.add(row["config"])
        key = (arms.get(row["config"], "?"), row["stage"], NUMBERS.sub("#", row["reason"]))
        counts[key] += 1
        first.setdefault(key, (row["reason"], row["training"]))
    for row in tables.trials.filter(pc.field("state") == "FAILED").to_pylist():
        if row["config"] not in seen:  # no training of its own to blame
            key = (row["arm"], "trial", NUMBERS.sub("#", row["reason"]))
            counts[key] += 1
            first.setdefault(key, (row["reason"], row["trial"]))
    return [Failure(*key[:2], first[key][0], count, first[key][1]) for key, count in counts.most_common()]


def states(tables: Tables) -> list[tuple[str, Counter[str]]]:
    """Arm -> its trials by state, in the arms' order."""
    rows = tables.trials.select(["arm", "state"]).to_pylist()
    return [(arm, Counter(row["state"] for row in rows if row["arm"] == arm)) for arm in tables.facts["arms"]]


def rungs(tables: Tables) -> list[Rung]:
    """The rungs of each arm's search, shortest first; [] where no trial could be stopped early."""
    staged = tables.trainings.filter(pc.field("stage").isin(["rung", "search"]) & (pc.field("state") == "COMPLETE"))
    if "rung" not in tables.trainings["stage"].to_pylist():
        return []
    longest: dict[str, set[int]] = {}
    for row in staged.select(["config", "epochs"]).to_pylist():
        longest.setdefault(row["config"], set()).add(row["epochs"])
    trials = tables.trials.select(["arm", "config"]).to_pylist()
    found = []
    for arm in tables.facts["arms"]:
        trained = [longest[trial["config"]] for trial in trials if trial["arm"] == arm and trial["config"] in longest]
        for epochs in sorted(set().union(*trained)):
            reached = sum(max(lengths) >= epochs for lengths in trained)
            found.append(Rung(arm, epochs, reached, sum(max(lengths) == epochs for lengths in trained)))
    return found


def places(tables: Tables) -> list[Place]:
    """The trials with several seeds, of the search or of a race, likeliest on the joint front first; [] without any."""
    several = set(repeated_trainings(tables.trainings)["config"].to_pylist())
    if not several:
        return []
    trials = tables.trials.filter(pc.field("state") == "COMPLETE").to_pylist()
    objectives, rows = tables.facts["objectives"], repeats.racing_rows(tables)
    whole = dict(racing.samples(objectives, trials, rows, ["search"]).gains)
    noise = racing.pooled(whole.values())
    names = [trial["trial"] for trial in trials if trial["config"] in several]
    whole = _contenders(whole, names)
    joint = racing.front_probability(whole, noise)
    own: dict[str, float] = {}
    for arm in tables.facts["arms"]:
        members = {trial["trial"] for trial in trials if trial["arm"] == arm}
        of_arm = {name: gains for name, gains in whole.items() if name in members}
        own |= racing.front_probability(of_arm)
    elsewhere = _on_new_images(tables, trials, whole, noise)
    found = [Place(name, len(whole[name]), own[name], joint[name], elsewhere.get(name, np.nan)) for name in names]
    return sorted(found, key=lambda place: (-place.joint, -place.own, place.trial))


def _on_new_images(
    tables: Tables, trials: list[dict[str, Any]], gains: dict[str, Array], noise: racing.Noise
) -> dict[str, float]:
    """Trial -> how probable the joint front is for new seeds and new images; {} where verdicts are missing."""
    configs = {trial["trial"]: trial["config"] for trial in trials}
    judged: dict[str, list[str]] = {}
    for row in judged_trainings(tables.trainings).select(["training", "config"]).to_pylist():
        judged.setdefault(row["config"], []).append(row["training"])
    moved = new_images.shifts(tables, {name: judged.get(configs[name], []) for name in gains}, racing.DRAWS)
    if moved is None:
        return {}
    return racing.front_probability(gains, noise, moved * fronts.signs(tables.facts["objectives"].values()))


def _contenders(gains: dict[str, Array], raced: list[str]) -> dict[str, Array]:
    """Those who can beat somebody near the front; of thousands of trials, the rest would only cost time."""
    if len(gains) <= CONTENDERS:
        return gains
    means = np.array([rows.mean(axis=0) for rows in gains.values()])
    ranks = fronts.ranks(means, ["max"] * means.shape[1])
    nearest = sorted(zip(ranks, gains, strict=True))[:CONTENDERS]
    kept = {*raced, *(name for _, name in nearest)}
    return {name: rows for name, rows in gains.items() if name in kept}
