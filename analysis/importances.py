"""How much each tuned parameter matters to each objective, arm by arm."""

import json
import warnings
from typing import Any, NamedTuple

import pyarrow.compute as pc

from absld_search.core.results import Tables

FEWEST = 20  # complete trials below which an importance is a guess
MOST = 500  # trials of an arm that are asked; of more, every second, third ...: the answer is as clear, and soon there
BEST = 0.1  # of the trials are told from the rest ...
SURE = 5  # ... but no fewer than so many: Optuna's documentation asks for five at least


class Importances(NamedTuple):
    """Of one arm and objective: parameter -> share of the importance, which sum to 1; {} where all values are equal."""

    arm: str
    objective: str
    shares: dict[str, float]


def importances(tables: Tables) -> list[Importances]:
    """One row an arm and objective; arms with nothing to tune, or with too few trials, are left out."""
    found = []
    for arm, rows in _tuned(tables).items():
        rows = rows[:: -(-len(rows) // MOST)] if rows else rows
        if len(rows) >= FEWEST:
            found += _of_arm(arm, rows, tables.facts["objectives"])
    return found


def too_few(tables: Tables) -> list[str]:
    """The arms that have too few complete trials, in words."""
    few = {arm: len(rows) for arm, rows in _tuned(tables).items() if len(rows) < FEWEST}
    return [f"{arm} has {count} complete trials and needs {FEWEST}" for arm, count in few.items()]


def _tuned(tables: Tables) -> dict[str, list[dict[str, Any]]]:
    """Arm -> its complete trials, of the arms that tune something."""
    complete = tables.trials.filter(pc.field("state") == "COMPLETE").to_pylist()
    rows = {arm: [row for row in complete if row["arm"] == arm] for arm in tables.facts["arms"]}
    return {arm: found for arm, found in rows.items() if any(row["params"] != "{}" for row in found)}


def _of_arm(arm: str, rows: list[dict[str, Any]], objectives: dict[str, str]) -> list[Importances]:
    # PED-ANOVA asks what tells the *lowest* values from the rest, so what is maximised is negated for it.
    signs = [-1.0 if way == "max" else 1.0 for way in objectives.values()]
    values = [
        [sign * row[f"objective/{name}"] for name, sign in zip(objectives, signs, strict=True)] for row in rows
    ]  # fmt: skip
    study = _study([json.loads(row["params"]) for row in rows], values)
    varied = [max(column) > min(column) for column in zip(*values, strict=True)]
    return [
        Importances(arm, name, _shares(study, place) if study and varied[place] else {})
        for place, name in enumerate(objectives)
    ]


def _study(params: list[dict[str, Any]], values: list[list[float]]) -> Any:
    """An arm's trials for Optuna, with the parameters that every trial has; None where none of them varies."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [name for name in params[0] if all(name in row for row in params)]
    spaces = {name: _space([row[name] for row in params]) for name in names}
    varied = {name: space for name, space in spaces.items() if not space.single()}
    if not varied:
        return None
    study = optuna.create_study(directions=["minimize"] * len(values[0]))
    study.add_trials(
        [
            optuna.create_trial(params={n: row[n] for n in varied}, distributions=dict(varied), values=value)
            for row, value in zip(params, values, strict=True)
        ]
    )
    return study


def _shares(study: Any, place: int) -> dict[str, float]:
    """PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) on low values of one of the study's objectives."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low values count
        quantile = max(BEST, SURE / len(study.get_trials(deepcopy=False)))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        target = lambda trial: trial.values[place]  # noqa: E731
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, target=target))


def _space(values: list[Any]) -> Any:
    """A distribution that holds these values: the search's own is not stored with the tables."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if any(isinstance(value, bool | str) or value is None for value in values):
        return CategoricalDistribution(sorted(set(values), key=str))
    low, high = float(min(values)), float(max(values))
    wide = low > 0 and high / low > 5  # as one would search it
    return FloatDistribution(low, high, log=wide)
