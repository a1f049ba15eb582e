"""Searches replayed on recorded curves, without Ray and without training: `python -m benchmarks.replay`.

Compared: samplers {random, tpe, gp, nsga2} x stopping {none, scalar ASHA, MO-ASHA}, all of ours, and Ray's own
OptunaSearch with Ray's own scalar ASHA through their `suggest` and `on_trial_result`. Counted: epochs until the
configurations trained to the end cover 95 % of the hypervolume of all recorded ones, both by means over seeds, while
the search sees one seed. The reference point is the worst recorded value of each objective.

What a sampler proposes is replaced by the nearest recorded configuration not tried yet: a table has no others,
and without repetition no search can win by asking twice. Samplers that learn from values alone are told the recorded
parameters; nsga2 needs its own trials told, and gets them with the neighbour's values. One worker, so that no result
depends on timing.

Two more, to see why: MO-ASHA without the lowest rung, and with rungs that rank as the mean of whole trainings does,
which no short training can do better.

Ray's pair is treated well: its rungs rank by trainings whose schedule ended there, which a training cut short can't do,
and a continued training is charged only the epochs that are new; ours pays for every rung from the start.

Each combination goes into docs/results/search/replay.json when it is done and into docs/search.md; --only does some.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import optuna
from scipy.stats import spearmanr

from absld_search.search import samplers, scheduler
from absld_search.search.arm_study import ArmStudy, Seen
from absld_search.search.halving import rules as rules_of
from absld_search.search.plan import Plan
from absld_search.search.scheduler import Outcome, Rules
from absld_search.space import Choice, LogUniform
from benchmarks import pages, search_page
from benchmarks.replay_record import TABLE
from benchmarks.replay_table import OBJECTIVES, Neighbours, Records

SHARE = 0.95
SAMPLERS = ("random", "tpe", "gp", "nsga2")
BASE, STOCK = "random + none", "Ray: OptunaSearch + ASHA"
LATER, KNOWING = ", no lowest rung", ", rungs that know the end"
Steps = Iterator[tuple[int, int | None]]  # (epochs of a training, the configuration if that was its whole length)
Row = dict[str, Any]


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
        study.supersede(numbers[name], told, lacks)
        yield length, int(name) if length == epochs[-1] else None


def _with(made: Plan, sampler: str) -> Plan:
    """The plan with another sampler and the objectives that are compared."""
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
    medians = np.sort(_medians(values, seed=0))
    return float(medians[49]), float(medians[1949])


def ratio(values: list[int], base: list[int]) -> tuple[float, float, float]:
    """Median / median of `base`, and its 95 % bootstrap interval."""
    drawn = np.sort(_medians(values, seed=1) / _medians(base, seed=2))
    return statistics.median(values) / statistics.median(base), float(drawn[49]), float(drawn[1949])


def _medians(values: list[int], seed: int) -> np.ndarray:
    draw = random.Random(seed)
    return np.array([statistics.median(draw.choices(values, k=len(values))) for _ in range(2000)])


def combinations(gp: int, repetitions: int) -> dict[str, tuple[Callable[[Records, int], Steps], int]]:
    """Name -> (a replay, how often)."""
    every = [(sampler, stopping, "") for sampler in SAMPLERS for stopping in scheduler.STOPPING]
    every += [(sampler, "mo-asha", seen) for sampler in ("random", "tpe") for seen in (LATER, KNOWING)]
    found: dict[str, tuple[Callable[[Records, int], Steps], int]] = {
        f"{sampler} + {stopping}{seen}": (
            lambda records, seed, a=sampler, b=stopping, c=seen: ours(_seen(records, c), a, b, seed),  # type: ignore[misc]
            gp if sampler == "gp" else repetitions,
        )
        for sampler, stopping, seen in every
    }
    return {**found, STOCK: (stock, repetitions)}


def _seen(records: Records, how: str) -> Records:
    """What a search is shown: all rungs, all but the lowest, or on every rung what a whole training is worth."""
    if how == LATER:
        return replace(records, epochs=records.epochs[1:], values=records.values[:, :, 1:])
    if how == KNOWING:
        return replace(records, values=np.broadcast_to(records.truth[:, None, None], records.values.shape))
    return records


def ranks(records: Records) -> dict[str, list[float]]:
    """Objective -> Spearman of each rung, one seed, with the whole training as a mean of all seeds; mean over seeds."""
    return {
        objective: [
            float(np.mean([spearmanr(seen, records.truth[:, k]).statistic for seen in records.values[:, :, rung, k].T]))
            for rung in range(len(records.epochs))
        ]
        for k, objective in enumerate(OBJECTIVES)
    }


def summary(needed: dict[str, list[int]]) -> list[Row]:
    """A row for each combination: median, its interval, how often, and what it is of random's and of the stock's."""
    rows = []
    for name, values in needed.items():
        row: Row = {"combination": name, "median": statistics.median(values), "interval": interval(values)}
        row["n"] = len(values)
        row |= {f"of {base}": ratio(values, needed[base]) for base in (BASE, STOCK) if base in needed}
        rows.append(row)
    return rows


@click.command()
@click.option("--table", type=click.Path(path_type=Path), default=TABLE, show_default=False)
@click.option("--workload", default="digits", show_default=True)
@click.option("--repetitions", default=100, show_default=True)
@click.option("--gp", default=20, show_default=True, help="Repetitions of gp, which is slow.")
@click.option("--only", default="", help="Only combinations whose name contains this; the others stay as they were.")
@click.option("--out", type=click.Path(path_type=Path), default=search_page.PAGE.results, show_default=False)
def main(table: Path, workload: str, repetitions: int, gp: int, only: str, out: Path) -> None:
    """Medians and intervals of the epochs that every combination needs."""
    records = Records.read(table, workload)
    facts: Row = {"configurations": len(records.params), "seeds": records.values.shape[1], "rungs": records.epochs}
    facts |= {"share": SHARE, "repetitions": repetitions, "all_trained": len(records.params) * records.epochs[-1]}
    click.echo(f"{facts}")
    before = pages.read(out, "replay")
    same = all(before.get(key) == (list(value) if key == "rungs" else value) for key, value in facts.items())
    needed: dict[str, list[int]] = before["needed"] if same else {}
    every = combinations(gp, repetitions)
    for name in [name for name in every if only in name]:
        replay, count = every[name]
        needed[name] = [epochs_needed(records, replay(records, seed)) for seed in range(count)]
        needed = {each: needed[each] for each in every if each in needed}
        rows = summary(needed)
        search_page.PAGE.write(out, "replay", {**facts, "ranks": ranks(records), "rows": rows, "needed": needed})
        click.echo(search_page.line(next(row for row in rows if row["combination"] == name)))


if __name__ == "__main__":
    main()
