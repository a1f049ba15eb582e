"""What an arm has spent, and whether it may start another trial: budgets in hours, the same for every arm."""

from __future__ import annotations

from collections.abc import Sequence

from absld_search.core import rungs
from absld_search.core.config import TrialConfig
from absld_search.search.ledger import COMPLETE, FAILED, Row
from absld_search.search.plan import Plan

HOUR = 3600.0


def share(plan: Plan) -> float | None:
    """Seconds of training that each arm may spend on its search; None: no such budget.

    Hours are of trainings, not of the clock: two that run at once cost two. `--gpu-hours` counts a training's share of
    a GPU. Arms with nothing to tune need one trial, whatever the budget is, and take no part.
    """
    request = plan.request
    hours = [] if request.time_budget is None else [request.time_budget]
    if request.gpu_hours is not None:
        hours.append(request.gpu_hours / request.gpus_per_trial)
    tuned = sum(bool(arm.tuned) for arm in plan.arms)
    return min(hours) * HOUR / max(tuned, 1) if hours else None


def epochs(row: Row, budgets: Sequence[int]) -> int:
    """Epochs that a training of an arm with these rungs had to train: a promoted trunk has some behind it."""
    length = int(row["job"]["schedule"]["epochs"])
    if length not in budgets or row["job"]["schedule"].get("kind") != "wsd":
        return length
    whole = rungs.whole_of(TrialConfig.from_dict(row["job"]))
    return rungs.paid(whole, budgets)[list(budgets).index(length)]


class Costs:
    """Seconds and epochs per arm, of the search, as far as it was told of the ledger's rows."""

    def __init__(self, plan: Plan) -> None:
        self.share = share(plan)
        self.budgets = {arm.name: plan.rungs(arm) for arm in plan.arms}
        self.spent = dict.fromkeys((arm.name for arm in plan.arms), 0.0)
        self.trained = dict.fromkeys(self.spent, 0)  # epochs that those seconds bought
        self.under_way = {name: dict[str, int]() for name in self.spent}  # training -> epochs
        self.ended = {name: set[str]() for name in self.spent}  # trainings

    def know(self, arm: str, row: Row) -> None:
        """A training that an arm has asked for, which may have ended: by another arm's trial, even before."""
        name = row["training"]
        if self.share is None or name in self.ended[arm]:
            return  # nobody asks, or it is paid
        length = self.under_way[arm].pop(name, 0) or epochs(row, self.budgets[arm])
        if row["state"] not in (COMPLETE, FAILED):
            self.under_way[arm][name] = length
            return
        self.ended[arm].add(name)
        self.spent[arm] += row["seconds"] or 0.0
        self.trained[arm] += (length if row["state"] == COMPLETE else row["epochs"]) if row["seconds"] else 0

    def allows(self, arm: str) -> bool:
        """Whether an arm may start another trial: what runs is counted at what an epoch has cost it so far."""
        if self.share is None:
            return True
        if not self.trained[arm]:
            return not self.under_way[arm] and self.spent[arm] < self.share  # one first, to learn what it costs
        rate = self.spent[arm] / self.trained[arm]
        return self.spent[arm] + rate * sum(self.under_way[arm].values()) < self.share
