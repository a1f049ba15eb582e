"""Which trial of a study is meant by `knee`, `best:METRIC` or `id:TRIAL`, and which training stands for it.

Everything is decided by values on val: a trial picked by its test values would be worth less than they say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from absld_search.core import metrics
from absld_search.core.attack_names import KINDS
from absld_search.core.results import Tables
from absld_search.search import fronts
from absld_search.words import UsageError, require_known
from analysis import repeats

Trial = dict[str, Any]
HOW = "it must read knee, best:METRIC or id:TRIAL"
SEARCHED = ["search", "race"]  # stages whose trainings a trial's values are means of


def pick(tables: Tables, which: str, arm: str | None = None) -> Trial:
    """The row of the trial that `which` names, among those of `arm` where one is given. Raises: UsageError."""
    if arm is not None:
        require_known("--arm", arm, tables.facts["arms"])
    rows = _of_arm(tables, arm)
    word, colon, rest = which.partition(":")
    if word == "id" and rest:
        return _by_name(rows, rest)
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    if not complete:
        raise UsageError(f"study: {'it' if arm is None else f'its arm {arm}'} has no complete trial yet.")
    if which == "knee":
        return _knee(tables, _settled(tables, complete))
    if word == "best" and rest:
        return _best(tables, complete, rest)
    raise UsageError(f"--pick {which!r}: {HOW}.")


def unconfirmed(tables: Tables, which: str, arm: str | None, trial: Mapping[str, Any], stage: str = "confirm") -> str:
    """One line where the trial that `pick` gave, or the one that it passed over, was not confirmed; else "".

    `stage`: of the training that stands for the trial; a confirmed one may have been asked for its search's.
    """
    if not _confirmed(tables, [dict(trial)]):
        return (
            f"{trial['trial']} was not confirmed: its values are the search's, on val, of one that may owe them to luck"
        )
    if stage != "confirm":
        return (
            f"this seed of {trial['trial']} is the search's: its values are those on val by which it was chosen, so "
            "they may owe something to luck; without --seed the first confirm seed is exported"
        )
    complete = [row for row in _of_arm(tables, arm) if row["state"] == "COMPLETE"]
    knee = _knee(tables, complete) if which == "knee" else trial
    if knee["trial"] == trial["trial"]:
        return ""
    what = "the knee of the arms' choices" if trial["chosen"] else "the knee of the confirmed trials"
    why = "is no arm's choice" if _confirmed(tables, [dict(knee)]) else "was not confirmed"
    return f"the front's knee, {knee['trial']}, {why}, so this is {what}; --pick id:{knee['trial']} has that one"


def _of_arm(tables: Tables, arm: str | None) -> list[Trial]:
    return [row for row in tables.trials.to_pylist() if arm in (None, row["arm"])]


def _settled(tables: Tables, rows: Sequence[Trial]) -> list[Trial]:
    """Those that the study settled on: its arms' choices, else what else was confirmed (another command's choice,
    which new trials have overtaken), else all."""
    confirmed = _confirmed(tables, rows)
    return [row for row in confirmed if row["chosen"]] or confirmed or list(rows)


def _confirmed(tables: Tables, rows: Sequence[Trial]) -> list[Trial]:
    """Those of the trials that have a complete confirm training."""
    whole = tables.trainings.filter((pc.field("stage") == "confirm") & (pc.field("state") == "COMPLETE"))
    configs = set(whole["config"].to_pylist())
    return [row for row in rows if row["config"] in configs]


def _knee(tables: Tables, rows: Sequence[Trial]) -> Trial:
    return rows[fronts.knee(_values(tables, rows), list(tables.facts["objectives"].values()))]


def training_of(tables: Tables, trial: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
    """The complete training that stands for a trial: its first confirm seed, else its first search seed.

    Raises: UsageError where there is none, or none with that `seed`.
    """
    of_trial = (pc.field("config") == trial["config"]) & (pc.field("state") == "COMPLETE")
    found = {row["seed"]: row for row in tables.trainings.filter(of_trial).to_pylist() if row["stage"] != "rung"}
    if not found:
        raise UsageError(
            f"--pick: trial {trial['trial']} has no complete training ({trial['reason'] or 'none ended'})."
        )
    if seed is not None and seed not in found:
        known = ", ".join(map(str, sorted(found)))
        raise UsageError(f"--seed {seed}: trial {trial['trial']} has no complete training with it. Known: {known}.")
    confirmed = sorted(index for index, row in found.items() if row["stage"] == "confirm")
    return found[seed if seed is not None else (confirmed or sorted(found))[0]]


def _by_name(rows: Sequence[Trial], name: str) -> Trial:
    """A trial by its name, or by its number where only one arm has it."""
    if name.isdecimal():
        numbered = [row for row in rows if row["number"] == int(name)]
        if len(numbered) == 1:
            return numbered[0]
        if numbered:
            names = ", ".join(row["trial"] for row in numbered)
            raise UsageError(f"--pick id:{name}: several arms have a trial of that number. Say one of {names}.")
    require_known("--pick id", name, [row["trial"] for row in rows])
    return next(row for row in rows if row["trial"] == name)


def _values(tables: Tables, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [[row[f"objective/{name}"] for name in tables.facts["objectives"]] for row in rows]


def _best(tables: Tables, rows: Sequence[Trial], metric: str) -> Trial:
    """The best in one metric on val; ties go to the better first objective, then to the earlier trial."""
    kinds = [KINDS[attack] for attack in ("clean", "apgd-ce")]  # what val is measured with
    known = [name for name in metrics.NAMES if metrics.kind_of(name) in kinds]
    require_known("--pick best", metric, known)
    sign = 1 if metrics.NAMES[metric] == "max" else -1
    first, direction = next(iter(tables.facts["objectives"].items()))
    measured = on_val(tables, [row["config"] for row in rows], metric)
    able = [row for row in rows if math.isfinite(measured.get(row["config"], math.nan))]
    if not able:
        raise UsageError(f"--pick best:{metric}: no complete trial has it on val.")

    def order(row: Trial) -> tuple[float, float]:
        return sign * measured[row["config"]], row[f"objective/{first}"] * (1 if direction == "max" else -1)

    return max(able, key=order)


def on_val(tables: Tables, configs: Collection[str], metric: str) -> dict[str, float]:
    """Configuration -> its metric on val, from the stored accuracies of classes, mean over the seeds of its search."""
    judged = pc.field("stage").isin(SEARCHED) & (pc.field("state") == "COMPLETE")
    wanted = judged & pc.field("config").isin(pa.array(sorted(set(configs)), pa.string()))
    config_of = {row["training"]: row["config"] for row in tables.trainings.filter(wanted).to_pylist()}
    found: dict[str, list[float]] = {}
    for training, value in repeats.of_metric(tables, config_of, metric).items():
        found.setdefault(config_of[training], []).append(value)
    return {config: float(np.mean(values)) for config, values in found.items()}
