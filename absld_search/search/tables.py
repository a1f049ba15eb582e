"""The ledger as files: `study.json`, what was asked, and `results/*.parquet`, what was found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from absld_search import __version__
from absld_search.core import data, results
from absld_search.search import costs, racing
from absld_search.search.choices import chosen_trials, front_trials
from absld_search.search.ledger import COMPLETE, FINAL, TOOK, Ledger, Row
from absld_search.search.plan import Plan
from absld_search.search.progress import planned
from absld_search.search.queue import CONFIRM, JUDGED
from absld_search.search.sharing import Sharing


def write(plan: Plan, ledger: Ledger) -> list[str]:
    """Write them; the keys of complete trainings whose shard is missing or damaged."""
    write_facts(plan, ledger)
    trials, trainings = ledger.trials(), _timed(ledger)
    joint, per_arm = front_trials(plan, trials)
    flags = {"pareto": joint, "pareto_arm": per_arm, "chosen": chosen_trials(plan, trials)}
    spent = _spent(plan, Sharing(plan, ledger), trials, trainings)
    rows = [_trial_row(plan, trial, flags) | spent[trial["trial"]] for trial in trials]
    named = [{name: row[name] for name in results.TRAININGS.names} for row in trainings]
    return results.combine(plan.folder, rows, named, plan.objectives)


def _timed(ledger: Ledger) -> list[Row]:
    """The trainings; those taken over with what they took where they were trained, None where nobody knows."""
    took = ledger.facts(TOOK)
    return [row | {"seconds": took.get(row["training"], row["seconds"]) or None} for row in ledger.trainings()]


def _spent(plan: Plan, sharing: Sharing, trials: list[Row], trainings: list[Row]) -> dict[str, Row]:
    """{trial: what it has cost in the search, over how many seeds, and how sure its place on its arm's front is}."""
    rows_of = _search_trainings(sharing, trials, trainings)
    budgets = {arm.name: plan.rungs(arm) for arm in plan.arms}
    sure = _front_probabilities(plan, trials, trainings)
    found = {}
    for trial in trials:
        rows, name = rows_of.get(trial["trial"], []), trial["trial"]
        whole = [row for row in rows if row["config"] == trial["config"] and row["stage"] in JUDGED]
        judged = [row for row in whole if row["state"] == COMPLETE]
        epochs = sum(costs.epochs(row, budgets[trial["arm"]]) for row in rows)
        found[name] = {"seeds": len(judged), "epochs": epochs, "seconds": sum(row["seconds"] or 0.0 for row in rows)}
        found[name]["front_probability"] = sure.get(name)
    return found


def _search_trainings(sharing: Sharing, trials: list[Row], trainings: list[Row]) -> dict[str, list[Row]]:
    """Trial -> its trainings that have ended, without the confirm stage's."""
    found: dict[str, list[Row]] = {}
    for trial in trials:
        sharing.add(trial)
    for row in trainings:
        for name in sharing.of(row) if row["stage"] != CONFIRM and row["state"] in FINAL else ():
            found.setdefault(name, []).append(row)
    return found


def _front_probabilities(plan: Plan, trials: list[Row], trainings: list[Row]) -> dict[str, float]:
    """Of the trials of arms in which some configuration has more than one seed."""
    found: dict[str, float] = {}
    for arm in plan.arms:
        own = [trial for trial in trials if trial["arm"] == arm.name]
        gains = racing.samples(plan.objectives, own, trainings, JUDGED).gains
        if any(len(each) > 1 for each in gains.values()):
            found |= racing.front_probability(gains)
    return found


def write_facts(plan: Plan, ledger: Ledger, ended: bool = False) -> None:
    """`study.json` alone: also at the start, so that whoever looks at a running study knows what was asked.

    `ended`: nothing is to come any more, so the plan is what there is; arms that share a configuration, or have failed,
    leave fewer trainings than were counted on.
    """
    counted = {"planned": dict(Counter(row["stage"] for row in ledger.trainings()))} if ended else {}
    results.write_facts(plan.folder, facts(plan) | _measured(plan, ledger) | counted)


def _measured(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """What is known of data and teachers."""
    known = {name: ledger.known(f"teacher:{name}") for name in plan.teachers()}
    made_by = {"code": ledger.facts("code:"), "samplers": ledger.known("samplers") or []}
    return {
        "data": ledger.known("data"),
        **made_by,
        "teachers": {name: found for name, found in known.items() if found},
    }


def facts(plan: Plan) -> dict[str, Any]:
    """What the study was asked, for `study.json`."""
    request, setting = plan.request, plan.setting
    shared = dict(plan.arms[0].words.items() & set.intersection(*(set(arm.words.items()) for arm in plan.arms)))
    configs = [plan.config(arm.words, seed=0) for arm in plan.arms]
    knobs = [config.hyperparameters for config in configs]
    rules = sorted({config.options.selection for config in configs})
    bounds = [k["temperature_min"] for k in knobs if "temperature_min" in k]
    bounds += [k["temperature_max"] for k in knobs if "temperature_max" in k]
    return {
        "study": request.study,
        "question": request.question,
        "space": request.space,
        "workload": setting.name,
        "workload_summary": setting.summary,
        "objectives": dict(plan.objectives),
        "constraints": [str(each) for each in plan.constraints],
        "arms": [arm.name for arm in plan.arms],
        "fixed": shared,
        "arm_words": {arm.name: {k: v for k, v in arm.words.items() if k not in shared} for arm in plan.arms},
        "classes": list(data.class_names(setting.dataset, request.data_dir)),
        "eps": knobs[0]["eps"],
        "planned": planned(plan),
        "search_seeds": len(plan.search_seeds),
        "confirm_seeds": len(plan.confirm_seeds),
        "confirm_seed_indices": list(plan.confirm_seeds),
        "command": request.command,
        "versions": {"absld_search": __version__, **_versions()},
        "selection": f"knee point of each arm's front on val; epoch of a training: {', '.join(rules)}",
        "temperature_bounds": sorted({min(bounds), max(bounds)}) if bounds else [],
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "ray", "optuna", "mlflow", "pyarrow")}


def _trial_row(plan: Plan, trial: Row, flags: Mapping[str, set[str]]) -> Row:
    values = trial["objectives"] or {}
    row = {name: trial[name] for name in ("trial", "arm", "number", "config", "state", "reason")}
    row |= {name: trial["trial"] in members for name, members in flags.items()}
    row["params"] = json.dumps(trial["params"])
    return row | {f"objective/{name}": values.get(name) for name in plan.objectives}
