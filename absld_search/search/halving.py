"""The rungs of a study, read from its ledger: what `scheduler` decides about, and what follows from it.

A rung's training is the configuration as `core.rungs` has it at fewer epochs, at the first search seed: it has a key
and a schedule of its own, and stands in the ledger under its trial's configuration with the stage `rung`; unless it is
another arm's whole training too, which it is first (`sharing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absld_search.core import rungs
from absld_search.core.metrics import NAMES
from absld_search.search import constraints, samplers, scheduler
from absld_search.search.ledger import COMPLETE, FAILED, STOPPED, Row
from absld_search.search.plan import Arm, Plan
from absld_search.search.scheduler import Outcome, Rules

RUNG, SEARCH, RACE, CONFIRM = "rung", "search", "race", "confirm"
JUDGED = (SEARCH, RACE)  # whose values a trial's objectives are means of
ENDED = (COMPLETE, FAILED)


def rules(plan: Plan, arm: Arm) -> Rules:
    """An arm's rungs. Objectives whose better direction is down are spreads between classes."""
    directions = tuple(plan.objectives.values())
    held_back = frozenset(index for index, name in enumerate(plan.objectives) if NAMES[name] == "min")
    floor = scheduler.FLOOR / plan.num_classes
    kind = plan.stopping if plan.stops(arm) else "none"  # a grid trains to the end who was stopped before it was one
    return Rules(kind, plan.rungs(arm), directions, plan.request.eta, held_back, floor)


class Halving:
    """An arm's rungs. What it holds is what it was told of the ledger's rows: no decision costs a query."""

    def __init__(self, plan: Plan, arm: Arm) -> None:
        self.plan, self.arm = plan, arm
        self.rules, self.orders = rules(plan, arm), scheduler.Orders()
        self.trials: dict[str, Row] = {}
        self.asked: dict[str, int] = {}  # trial -> epochs of its longest training
        self.outcomes: dict[tuple[int, int], Outcome] = {}  # (trial's number, epochs) -> what it was worth
        self.whole: set[str] = set()  # trials that have been given their whole training
        self.rungs = set(self.rules.epochs[:-1])  # and those of earlier starts, which may have had others

    @property
    def on(self) -> bool:
        """Whether there is a rung below the whole training."""
        return len(self.rules.epochs) > 1

    def jobs(self, words: Mapping[str, Any], epochs: int) -> list[Row]:
        """The trainings of a configuration on the rung of `epochs`."""
        whole = self.plan.config(words, self.plan.search_seeds[0])
        if epochs == self.rules.epochs[-1]:
            others = [self.plan.config(words, seed) for seed in self.plan.search_seeds[1:]]
            return [job(config, SEARCH, whole.hash) for config in (whole, *others)]
        return [job(rungs.at(whole, epochs), RUNG, whole.hash)]

    def know(self, trial: Row, row: Row) -> None:
        """A trial has this training, which may have ended; of several seeds, the first is the rung's."""
        if row["stage"] not in (RUNG, SEARCH):
            return
        name, epochs = trial["trial"], epochs_of(row)
        self.trials[name] = trial
        self.asked[name] = max(self.asked.get(name, 0), epochs)
        if row["stage"] == SEARCH and row["config"] == trial["config"]:
            self.whole.add(name)
        else:
            self.rungs.add(epochs)
        if row["state"] in ENDED and row["seed"] == self.plan.search_seeds[0]:
            self.outcomes[trial["number"], epochs] = self._outcome(name, row)

    def _outcome(self, trial: str, row: Row) -> Outcome:
        metrics, names = row["metrics"] or {}, self.plan.objectives
        values = tuple(metrics[name] for name in names) if all(name in metrics for name in names) else None
        broken = constraints.violations(self.plan.constraints, metrics) if values else {}
        return Outcome(trial, epochs_of(row), values, metrics.get("robust_accuracy", 0.0), broken)

    def promotion(self, more: bool) -> tuple[Row, int] | None:
        """The trial that deserves a longer training, and its epochs; `more`: new trials can still come."""
        if self.rules.kind == "none" and len(self.whole) == len(self.asked):
            return None  # all have it already
        outcomes = [self.outcomes[key] for key in sorted(self.outcomes)]
        failed = {each.trial for each in outcomes if each.values is None}
        last = self.rules.epochs[-1]  # a whole training is another length where epochs are tuned
        asked = {t: last if t in self.whole else epochs for t, epochs in self.asked.items() if t not in failed}
        found = scheduler.promotion(outcomes, asked, self.rules, more, self.orders)
        return (self.trials[found[0]], found[1]) if found else None

    def seen(self) -> list[tuple[dict[str, Any], tuple[float, ...] | None, Mapping[str, float]]] | None:
        """(parameters, values or None while it runs, broken constraints) of what a sampler should learn from; None: of
        everything."""
        if not self.on:
            return None
        outcomes = [self.outcomes[key] for key in sorted(self.outcomes)]
        found = scheduler.seen(outcomes, self.rules, samplers.STARTUP + len(self.arm.tuned))
        running = [t for t, epochs in self.asked.items() if (self.trials[t]["number"], epochs) not in self.outcomes]
        told = [(self.trials[each.trial]["params"], each.values, each.violations) for each in found]
        return [*told, *((self.trials[trial]["params"], None, {}) for trial in running)]

    def stopped(self, trial: Row) -> dict[str, Any] | None:
        """What becomes of a trial whose only trainings, on rungs, have all ended; None while one runs."""
        epochs = self.asked[trial["trial"]]
        last = self.outcomes.get((trial["number"], epochs))
        if last is None:
            return None
        if last.values is None:
            return {"state": FAILED, "objectives": None}
        whole = self.plan.config(trial["words"], 0).schedule.epochs
        return {"state": STOPPED, "reason": f"stopped after {epochs} of {whole} epochs", "objectives": None}

    def was_promoted(self, trial: Row) -> bool:
        """Whether Optuna has been told that it stopped, and now there is more to tell."""
        return sum((trial["number"], epochs) in self.outcomes for epochs in (*self.rungs, self.rules.epochs[-1])) > 1

    def shortfall(self, trial: Row) -> tuple[dict[str, float], float]:
        """(values, how infeasible) of a stopped trial for Optuna: the share of the epochs that it lacks, above 0."""
        last = self.outcomes[trial["number"], self.asked[trial["trial"]]]
        whole = self.plan.config(trial["words"], 0).schedule.epochs
        return dict(zip(self.plan.objectives, last.values or (), strict=True)), 1 - last.epochs / whole


def epochs_of(row: Row) -> int:
    """How long a training is by its schedule."""
    return int(row["job"]["schedule"]["epochs"])


def job(config: Any, stage: str, whole: str | None = None) -> Row:
    """A training for the queue; `whole`: the hash of the configuration that it is a short form of."""
    facts = {"training": config.key, "config": whole or config.hash, "seed": config.seed, "stage": stage}
    return {**facts, "job": config.to_dict(), "attempts": 0, "epochs": 0}
