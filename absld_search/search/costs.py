"""What an arm has spent, and whether it may start another trial: budgets in hours or epochs, the same for each arm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from absld_search.core import rungs
from absld_search.core.config import TrialConfig
from absld_search.search.ledger import COMPLETE, FAILED, Row
from absld_search.search.plan import Arm, Plan

HOUR = 3600.0


def share(plan: Plan) -> float | None:
    """Seconds of training that each arm may spend on its search; None: no such budget.

    Hours are of trainings, not of the clock: two that run at once cost two. `--gpu-hours` counts a training's share of
    a GPU.
    """
    request = plan.request
    hours = [] if request.time_budget is None else [request.time_budget]
    if request.gpu_hours is not None:
        hours.append(request.gpu_hours / request.gpus_per_trial)
    return min(hours) * HOUR / _sharers(plan) if hours else None


def epochs_share(plan: Plan) -> float | None:
    """Epochs of training that each arm may spend on its search; None: no such budget."""
    budget = plan.request.epochs_budget
    return None if budget is None else budget / _sharers(plan)


def expected(plan: Plan, arm: Arm) -> int:
    """Trials that an arm is likely to come to: as many as were asked for, as a budget of epochs pays, or, since nobody
    knows yet what an hour brings, as the workload has without a budget."""
    if plan.request.trials is not None:
        return arm.trials
    share = epochs_share(plan)
    count = plan.setting.trials if share is None else math.ceil(share / _epochs_a_trial(plan, arm))
    return min(arm.trials, count)


def _epochs_a_trial(plan: Plan, arm: Arm) -> float:
    """On average: of those on a rung one in eta goes on."""
    *short, whole = [length / plan.request.eta**rung for rung, length in enumerate(plan.rungs(arm))]
    return sum(short) + whole * len(plan.search_seeds)


def _sharers(plan: Plan) -> int:
    """Arms with nothing to tune need one trial, whatever the budget is, and take no part."""
    return max(1, sum(bool(arm.tuned) for arm in plan.arms))


def epochs(row: Row, budgets: Sequence[int]) -> int:
    """Epochs that a training of an arm with these rungs had to train: a promoted trunk has some behind it."""
    length = int(row["job"]["schedule"]["epochs"])
    if length not in budgets or row["job"]["schedule"].get("kind") != "wsd":
        return length
    whole = rungs.whole_of(TrialConfig.from_dict(row["job"]))
    return rungs.paid(whole, budgets)[list(budgets).index(length)]


class Costs:
    """Seconds and epochs per arm, of the search, as far as it was told of the ledger's rows."""

    def __init__(self, plan: Plan, took: dict[str, float] | None = None) -> None:
        """`took`: training -> the seconds that it took in the study that it was taken over from."""
        self.share, self.epochs_share, self.took = share(plan), epochs_share(plan), took or {}
        self.budgets = {arm.name: plan.rungs(arm) for arm in plan.arms}
        self.spent = dict.fromkeys((arm.name for arm in plan.arms), 0.0)
        self.trained = dict.fromkeys(self.spent, 0)  # epochs, here
        self.known = {name: (0.0, 0) for name in self.spent}  # seconds and epochs that an estimate is made from
        self.under_way = {name: dict[str, int]() for name in self.spent}  # training -> epochs
        self.ended = {name: set[str]() for name in self.spent}  # trainings

    def know(self, arm: str, row: Row) -> None:
        """A training that an arm has asked for, which may have ended: by another arm's trial, even before."""
        name = row["training"]
        if (self.share is None and self.epochs_share is None) or name in self.ended[arm]:
            return  # nobody asks, or it is paid
        length = self.under_way[arm].pop(name, 0) or epochs(row, self.budgets[arm])
        if row["state"] not in (COMPLETE, FAILED):
            self.under_way[arm][name] = length
            return
        self.ended[arm].add(name)
        ran = length if row["state"] == COMPLETE else row["epochs"]
        self.spent[arm] += row["seconds"] or 0.0
        self.trained[arm] += 0 if name in self.took else ran
        if seconds := self.took.get(name, row["seconds"]):
            before, behind = self.known[arm]
            self.known[arm] = (before + seconds, behind + ran)

    def allows(self, arm: str) -> bool:
        """Whether an arm may start another trial: what runs is counted at what an epoch has cost it so far."""
        return self._hours_allow(arm) and self._epochs_allow(arm)

    def _epochs_allow(self, arm: str) -> bool:
        share = self.epochs_share
        return share is None or self.trained[arm] + sum(self.under_way[arm].values()) < share

    def _hours_allow(self, arm: str) -> bool:
        if self.share is None:
            return True
        seconds, behind = self.known[arm]
        if not behind:
            return not self.under_way[arm] and self.spent[arm] < self.share  # one first, to learn what it costs
        return self.spent[arm] + seconds / behind * sum(self.under_way[arm].values()) < self.share
