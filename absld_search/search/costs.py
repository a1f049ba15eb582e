"""What an arm has spent, and whether it may start another trial: budgets in hours, the same for every arm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from absld_search.core import rungs
from absld_search.core.config import TrialConfig
from absld_search.search.ledger import Ledger, Row
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
    """Seconds and epochs per arm, of the search: read from the ledger once, then kept up."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.share = share(plan)
        self.budgets = {arm.name: plan.rungs(arm) for arm in plan.arms}
        self.spent = dict.fromkeys((arm.name for arm in plan.arms), 0.0)
        self.trained = dict.fromkeys(self.spent, 0)  # epochs that those seconds bought
        self.under_way = {name: dict[str, int]() for name in self.spent}  # training -> epochs
        if self.share is None:
            return  # nobody asks
        arms: dict[str, set[str]] = {}
        for trial in ledger.trials():
            arms.setdefault(trial["config"], set()).add(trial["arm"])
        for row in ledger.trainings():
            for arm in arms.get(row["config"], ()) if row["stage"] != "confirm" else ():
                self.expect(arm, [row])
                if row["seconds"] is not None or row["state"] == "FAILED":
                    self.add(arm, row)

    def expect(self, arm: str, rows: Iterable[Row]) -> None:
        """Trainings that an arm has asked for."""
        if self.share is not None:
            self.under_way[arm] |= {row["training"]: epochs(row, self.budgets[arm]) for row in rows}

    def add(self, arm: str, row: Row) -> None:
        """A training that has ended."""
        if length := self.under_way[arm].pop(row["training"], 0):
            self.spent[arm] += row["seconds"] or 0.0
            self.trained[arm] += length if row["seconds"] else 0

    def allows(self, arm: str) -> bool:
        """Whether an arm may start another trial: what runs is counted at what an epoch has cost it so far."""
        if self.share is None:
            return True
        if not self.trained[arm]:
            return len(self.under_way[arm]) == 0  # one first, to learn what it costs
        rate = self.spent[arm] / self.trained[arm]
        return self.spent[arm] + rate * sum(self.under_way[arm].values()) < self.share
