"""Searches replayed on recorded curves, without Ray and without training: `python -m benchmarks.replay`.

Compared: samplers {random, tpe, gp, nsga2} x stopping {none, scalar ASHA, MO-ASHA}, all of ours, and Ray's own
OptunaSearch with Ray's own scalar ASHA through their `suggest` and `on_trial_result`. Counted: epochs until the
configurations trained to the end cover 95 % of the hypervolume of all recorded ones, both by means over seeds, while
the search sees one seed. The reference point is the worst recorded value of each objective.

What a sampler proposes is replaced by the nearest recorded configuration not tried yet: a table has no others,
and without repetition no search can win by asking twice. Samplers that learn from values alone are told the recorded
parameters; nsga2 needs its own trials told, and gets them with the neighbour's values. One worker, so that no result
depends on timing.

Ray's pair is treated well: its rungs rank by trainings whose schedule ended there, which a training cut short can't do,
and a continued training is charged only the epochs that are new; ours pays for every rung from the start.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import optuna
import pyarrow.parquet as pq

from absld_search.search import fronts, samplers, scheduler
from absld_search.search.arm_study import ArmStudy, Seen
from absld_search.search.halving import rules as rules_of
from absld_search.search.plan import Plan
from absld_search.search.scheduler import Outcome, Rules
from absld_search.space import Choice, LogUniform
from benchmarks.replay_record import TABLE, resolved

SHARE = 0.95
SAMPLERS = ("random", "tpe", "gp", "nsga2")
OBJECTIVES = ("robust_cvar", "robust_accuracy")
Steps = Iterator[tuple[int, int | None]]  # (epochs of a training, the configuration if that was its whole length)


@dataclass
class Records:
    """The table: values (N, seeds, rungs, k) of N configurations, more is better."""

    params: list[dict[str, Any]]
    epochs: tuple[int, ...]
    values: np.ndarray
    made: Plan

    @classmethod
    def read(cls, path: Path, workload: str) -> Records:
        """Only looks at the end of a training; the curve in between is for other questions."""
        rows = [row for row in pq.read_table(path).to_pylist() if row["epoch"] == row["schedule"]]
        epochs = tuple(sorted({row["schedule"] for row in rows}))
        seeds = 1 + max(row["seed"] for row in rows)
        count = 1 + max(row["configuration"] for row in rows)
        values = np.full((count, seeds, len(epochs), len(OBJECTIVES)), np.nan)
        params: list[dict[str, Any]] = [{} for _ in range(count)]
        for row in rows:
            params[row["configuration"]] = json.loads(row["params"])
            place = (row["configuration"], row["seed"], epochs.index(row["schedule"]))
            values[place] = [row[name] for name in OBJECTIVES]
        return cls(params, epochs, values, resolved(workload, count))

    @property
    def truth(self) -> np.ndarray:
        """(N, k): what a whole training is worth, as a mean over seeds."""
        return self.values[:, :, -1].mean(axis=1)

    def covered(self, configurations: list[int]) -> float:
        """Their share of the hypervolume of all."""
        sides, worst = ["max"] * len(OBJECTIVES), self.truth.min(axis=0)
        return fronts.hypervolume(self.truth[configurations], sides, worst) / fronts.hypervolume(
            self.truth, sides, worst
        )


@dataclass
class Neighbours:
    """Recorded configurations by nearness, each handed out once."""

    records: Records
    left: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        (self.arm,) = self.records.made.arms
        self.left = set(range(len(self.records.params)))
        self.places = np.array([self._place(params) for params in self.records.params])

    def _place(self, params: dict[str, Any]) -> list[float]:
        """A point in the unit cube; a choice is one axis per option, what does not exist is in the middle."""
        found: list[float] = []
        for name, how in self.arm.tuned.items():
            if isinstance(how, Choice):
                found += [float(params.get(name) == option) / np.sqrt(2) for option in how.options]
            elif name not in params:
                found.append(0.5)
            else:
                scale = np.log if isinstance(how, LogUniform) else float
                low, high, here = scale(how.low), scale(how.high), scale(params[name])  # type: ignore[union-attr]
                found.append(float((here - low) / (high - low)))
        return found

    def take(self, params: dict[str, Any]) -> int:
        """The nearest that is left."""
        left = sorted(self.left)
        distances = np.linalg.norm(self.places[left] - self._place(params), axis=1)
        nearest = left[int(distances.argmin())]
        self.left.remove(nearest)
        return nearest


def ours(records: Records, sampler: str, stopping: str, seed: int) -> Steps:
    """Our searcher and our rungs, as `queue` drives them, with one worker."""
    seen_seed, neighbours, made = seed % records.values.shape[1], Neighbours(records), _with(records.made, sampler)
    (arm,) = made.arms
    study = ArmStudy(made, arm, optuna.storages.InMemoryStorage(), seed=seed)
    base = rules_of(made, arm)
    epochs = records.epochs if stopping != "none" else records.epochs[-1:]
    rules = Rules(stopping, epochs, ("max",) * len(OBJECTIVES), base.eta, floor=base.floor)
    outcomes: list[Outcome] = []
    asked: dict[str, int] = {}
    numbers: dict[str, int] = {}
    while True:
        found = scheduler.promotion(outcomes, asked, rules, more=bool(neighbours.left)) if stopping != "none" else None
        if found is None and not neighbours.left:
            return
        if found is None:
            best = scheduler.seen(outcomes, rules, samplers.STARTUP + len(arm.tuned))
            seen = [Seen(records.params[int(each.trial)], each.values) for each in best]
            number, params = study.ask(seen)
            name = str(neighbours.take(params))
            numbers[name], found = number, (name, epochs[0])
        name, length = found
        asked[name] = length
        values = records.values[int(name), seen_seed, records.epochs.index(length)]
        outcomes.append(Outcome(name, length, tuple(map(float, values)), float(values[1])))
        lacks = {} if stopping == "none" else {"budget": 1 - length / epochs[-1]}
        told = dict(zip(made.objectives, map(float, values), strict=True))
        study.tell(numbers[name], told, lacks)
        study.supersede(numbers[name], told, {}) if length == epochs[-1] else None
        yield length, int(name) if length == epochs[-1] else None


def _with(made: Plan, sampler: str) -> Plan:
    """The plan with another sampler and the objectives that are compared."""
    from dataclasses import replace

    return replace(made, sampler=sampler, objectives=dict.fromkeys(OBJECTIVES, "max"))


def stock(records: Records, seed: int) -> Steps:
    """Ray's OptunaSearch (TPE) with Ray's ASHA on the first objective, as `TuneController` calls them."""
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler
    from ray.tune.search.optuna import OptunaSearch

    neighbours, seen_seed = Neighbours(records), seed % records.values.shape[1]
    (arm,) = records.made.arms
    sampler = optuna.samplers.TPESampler(seed=seed)
    search = OptunaSearch(lambda trial: _define(trial, arm.tuned), metric=list(OBJECTIVES),
                          mode=["max"] * len(OBJECTIVES), sampler=sampler)  # fmt: skip
    asha = ASHAScheduler("epoch", OBJECTIVES[0], "max", records.epochs[-1], records.epochs[0], reduction_factor=3)
    while neighbours.left:
        trial = SimpleNamespace(trial_id=f"t{len(neighbours.left)}")
        config = search.suggest(trial.trial_id)
        asha.on_trial_add(None, trial)
        chosen, spent = neighbours.take(config), 0
        for rung, epochs in enumerate(records.epochs):
            values = map(float, records.values[chosen, seen_seed, rung])
            result = {"epoch": epochs, "training_iteration": epochs, **dict(zip(OBJECTIVES, values, strict=True))}
            whole = epochs == records.epochs[-1]
            stop = whole or asha.on_trial_result(None, trial, result) == TrialScheduler.STOP
            yield epochs - spent, chosen if whole else None
            spent = epochs
            if stop:
                break
        asha.on_trial_complete(None, trial, result)
        search.on_trial_complete(trial.trial_id, result)


def _define(trial: optuna.Trial, tuned: Any) -> None:
    words: dict[str, Any] = {}
    for name, how in tuned.items():
        if all(words.get(other) == value for other, value in how.when.items()):
            if isinstance(how, Choice):
                words[name] = trial.suggest_categorical(name, list(how.options))
            else:
                words[name] = trial.suggest_float(name, how.low, how.high, log=isinstance(how, LogUniform))


def epochs_needed(records: Records, steps: Steps, share: float = SHARE) -> int:
    """Until the configurations trained to the end cover `share`; all that were spent where they never do."""
    spent, whole = 0, list[int]()
    for epochs, configuration in steps:
        spent += epochs
        if configuration is not None:
            whole.append(configuration)
            if records.covered(whole) >= share:
                return spent
    return spent


def interval(values: list[int]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return medians[49], medians[1949]


def combinations(gp: int, repetitions: int) -> dict[str, tuple[Callable[[Records, int], Steps], int]]:
    """Name -> (a replay, how often)."""
    found: dict[str, tuple[Callable[[Records, int], Steps], int]] = {
        f"{sampler} + {stopping}": (
            lambda records, seed, a=sampler, b=stopping: ours(records, a, b, seed),  # type: ignore[misc]
            gp if sampler == "gp" else repetitions,
        )
        for sampler in SAMPLERS
        for stopping in scheduler.STOPPING
    }
    return {**found, "Ray: OptunaSearch + ASHA": (stock, repetitions)}


@click.command()
@click.option("--table", type=click.Path(path_type=Path), default=TABLE, show_default=False)
@click.option("--workload", default="digits", show_default=True)
@click.option("--repetitions", default=100, show_default=True)
@click.option("--gp", default=20, show_default=True, help="Repetitions of gp, which is slow.")
@click.option("--only", default="", help="Only combinations whose name contains this.")
def main(table: Path, workload: str, repetitions: int, gp: int, only: str) -> None:
    """Medians and intervals of the epochs that every combination needs."""
    records = Records.read(table, workload)
    click.echo(f"{len(records.params)} configurations, {records.values.shape[1]} seeds, rungs {records.epochs}; "
               f"all trained whole: {len(records.params) * records.epochs[-1]} epochs")  # fmt: skip
    base = None
    for name, (replay, count) in combinations(gp, repetitions).items():
        if only in name:
            needed = [epochs_needed(records, replay(records, seed)) for seed in range(count)]
            median, (low, high) = statistics.median(needed), interval(needed)
            base = base or median
            click.echo(f"{name:<28}{median:8.0f} epochs  [{low:.0f}, {high:.0f}]  n={count}  {median / base:5.2f} of the first")  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
