"""How much each tuned parameter matters to each objective, arm by arm."""

import json
import warnings
from typing import Any, NamedTuple

import pyarrow.compute as pc

from absld_search.core.results import Tables

FEWEST = 8  # complete trials below which an importance is a guess
MOST = 1000  # trials of an arm that are asked; of more, every second, third ...: the answer is as clear, and soon there


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
        params = [json.loads(row["params"]) for row in rows]
        if len(rows) >= FEWEST:
            found += [_of(arm, name, params, rows, way) for name, way in tables.facts["objectives"].items()]
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


def _of(arm: str, objective: str, params: list[dict[str, Any]], rows: list[dict[str, Any]], way: str) -> Importances:
    # PED-ANOVA asks what tells the *lowest* values from the rest, so what is maximised is negated for it.
    sign = -1.0 if way == "max" else 1.0
    values = [sign * row[f"objective/{objective}"] for row in rows]
    varied = max(values) > min(values)
    return Importances(arm, objective, _shares(params, values) if varied else {})


def _shares(params: list[dict[str, Any]], values: list[float]) -> dict[str, float]:
    """PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) of the parameters that every trial has, on low values."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [name for name in params[0] if all(name in row for row in params)]
    spaces = {name: _space([row[name] for row in params]) for name in names}
    varied = {name: space for name, space in spaces.items() if not space.single()}
    if not varied:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low values count, and that a parameter's distribution is a guess
        study = optuna.create_study(direction="minimize")
        study.add_trials(
            [
                optuna.create_trial(params={n: row[n] for n in varied}, distributions=dict(varied), value=value)
                for row, value in zip(params, values, strict=True)
            ]
        )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _space(values: list[Any]) -> Any:
    """A distribution that holds these values: the search's own is not stored with the tables."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if any(isinstance(value, bool | str) or value is None for value in values):
        return CategoricalDistribution(sorted(set(values), key=str))
    low, high = float(min(values)), float(max(values))
    wide = low > 0 and high / low > 5  # as one would search it
    return FloatDistribution(low, high, log=wide)
