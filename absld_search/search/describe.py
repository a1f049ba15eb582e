"""A plan in words, before it is carried out."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

from absld_search import __version__
from absld_search.search import costs, racing, samplers, stats
from absld_search.search.ledger import as_json
from absld_search.search.plan import Arm, Plan
from absld_search.words import masked
from absld_search.workloads import SMOKE, WORKLOADS


def opening(plan: Plan) -> str:
    """What will be done, on what, at what size, and where it goes."""
    request, setting = plan.request, plan.setting
    tuned = ", ".join(f"{arm.name} {_trials(plan, arm)}" for arm in plan.arms)
    others = ", ".join(name for name in WORKLOADS if name != setting.name) or "none yet"
    return "\n".join(
        [
            f"absld_search {__version__}: {request.space} on {setting.name}",
            f"  question   {request.question}",
            f"  workload   {setting.summary}",
            f"  arms       {tuned} trials, {plan.sampler} sampler, {len(plan.search_seeds)} seed(s) each, on val",
            f"  optimises  {', '.join(plan.objectives)}, of the same images and attack noise in every trial",
            f"  confirm    {_confirm(plan)}",
            *(f"  {line}" for line in [*_limits(plan), *_warnings(plan)]),
            f"  results    {plan.folder}",
            f"  workloads  others: {others}",
            *(
                ["  SMOKE      proves the installation; its numbers mean nothing"]
                if setting.name.endswith(SMOKE)
                else []
            ),
        ]
    )


def _trials(plan: Plan, arm: Arm) -> str:
    expected = costs.expected(plan, arm)
    return str(expected) if expected == arm.trials else f"about {expected}"


def _limits(plan: Plan) -> list[str]:
    """What bounds the search besides the number of trials."""
    lines = [f"constraint {each}" for each in plan.constraints]
    if rungs := {plan.rungs(arm) for arm in plan.arms if plan.stops(arm)}:
        lengths = "; ".join("/".join(map(str, epochs)) for epochs in sorted(rungs))
        lines.append(f"stopping   {plan.stopping}: trainings of {lengths} epochs, one in {plan.request.eta} goes on")
    if (seconds := costs.share(plan)) is not None:
        lines.append(f"budget     {seconds / costs.HOUR:.3g} hours of training for each arm's search")
    if (epochs := costs.epochs_share(plan)) is not None:
        lines.append(f"budget     {epochs:.4g} epochs of training for each arm's search")
    if plan.request.race:
        lines.append(f"race       up to {racing.MOST_SEEDS} seeds for those whose place on the front is in doubt")
    return lines


def _warnings(plan: Plan) -> list[str]:
    """Arms between which nothing can be found, and what the sampler can't do with these budgets."""
    searched = [arm for arm in plan.arms if arm.tuned and len(arm.first) < arm.trials]
    found = [line for arm in searched for line in samplers.advice(plan.sampler, _setting(plan, arm))]
    return [f"warning    {line}" for line in dict.fromkeys([*_twins(plan), *found])]


def _twins(plan: Plan) -> list[str]:
    """Arms that train and search the same, however they are written."""
    return [
        f"arms {one.name!r} and {other.name!r} are identical: a difference between them can only be chance"
        for one, other in itertools.combinations(plan.arms, 2)
        if _searches(plan, one) == _searches(plan, other)
    ]


def _searches(plan: Plan, arm: Arm) -> tuple[Any, ...]:
    """What an arm trains, what it tunes, and the words that decide whether a tuned parameter exists."""
    conditions = [arm.words.get(name) for how in arm.tuned.values() for name in how.when]
    return plan.config(arm.words, seed=0).hash, arm.tuned, conditions


def _setting(plan: Plan, arm: Arm) -> samplers.Setting:
    return samplers.Setting(0, any(how.when for how in arm.tuned.values()), costs.expected(plan, arm))


def _confirm(plan: Plan) -> str:
    seeds, comparisons = len(plan.confirm_seeds), len(plan.arms) - 1
    text = f"each arm's choice with {seeds} fresh seeds, the same in every arm, on test"
    if comparisons < 1:
        return text
    needed = stats.seeds_needed(comparisons)
    lowest = stats.floor(seeds, comparisons)
    verdict = "enough" if seeds >= needed else "too few to decide anything"
    return f"{text}; Holm over {comparisons} comparison(s) needs {needed} ({verdict}: p can reach {lowest:.3g})"


def as_dict(plan: Plan) -> dict[str, Any]:
    """The resolved plan with each arm's fingerprint, as plain values."""
    arms = {arm.name: {"trials": arm.trials, "fingerprint": plan.fingerprint(arm)} for arm in plan.arms}
    request = {**asdict(plan.request), "out": str(plan.request.out)}
    request |= {name: masked(request[name]) for name in ("storage", "tracking_uri")}
    return as_json(
        {
            "request": request,
            "sampler": plan.sampler,
            "rungs": {arm.name: plan.rungs(arm) for arm in plan.arms},
            "constraints": [str(each) for each in plan.constraints],
            "confirm_seeds": plan.confirm_seeds,
            "arms": arms,
        }
    )


def sampled(plan: Plan, count: int = 3) -> str:
    """The first configurations of every arm, as a study would start; nothing is stored."""
    import optuna

    from absld_search.search.arm_study import ArmStudy

    lines = []
    for arm in plan.arms:
        study = ArmStudy(plan, arm, optuna.storages.InMemoryStorage())
        for _ in range(min(count, arm.trials)):
            number, params = study.ask()
            words = {**arm.words, **params}
            shown = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in words.items())
            lines.append(f"  {arm.name}-{number:03d}  {shown}")
    return "\n".join(["first configurations:", *lines, "dry run: nothing was created."])
