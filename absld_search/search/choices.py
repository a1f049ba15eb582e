"""Who is on a front, and which of its trials an arm chooses: read from the ledger's rows."""

from __future__ import annotations

from absld_search.search import fronts
from absld_search.search.ledger import COMPLETE, Row
from absld_search.search.plan import Plan


def choice(plan: Plan, trials: list[Row]) -> Row | None:
    """An arm's choice: the knee of its own front on val; None where no trial is complete."""
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    if not complete:
        return None
    return complete[fronts.knee(values_of(plan, complete), list(plan.objectives.values()))]


def values_of(plan: Plan, trials: list[Row]) -> list[list[float]]:
    """The objectives of complete trials, (N, k)."""
    return [[trial["objectives"][name] for name in plan.objectives] for trial in trials]


def front_trials(plan: Plan, trials: list[Row]) -> tuple[set[str], set[str]]:
    """Names of the trials on the joint front of all arms, and of those on their own arm's."""
    arms = {arm.name: [t for t in trials if t["arm"] == arm.name] for arm in plan.arms}
    return _front(plan, trials), set().union(*(_front(plan, rows) for rows in arms.values()))


def chosen_trials(plan: Plan, trials: list[Row]) -> set[str]:
    """Names of the arms' choices."""
    arms = [[trial for trial in trials if trial["arm"] == arm.name] for arm in plan.arms]
    return {found["trial"] for found in (choice(plan, rows) for rows in arms) if found}


def _front(plan: Plan, trials: list[Row]) -> set[str]:
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    if not complete:
        return set()
    mask = fronts.non_dominated(values_of(plan, complete), list(plan.objectives.values()))
    return {trial["trial"] for trial, on in zip(complete, mask, strict=True) if on}
