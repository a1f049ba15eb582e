"""Objectives seed by seed, on val: recomputed from the stored class accuracies, since trials hold only their means."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core import metrics
from absld_search.core.attack_names import KINDS
from absld_search.core.results import Tables
from analysis.loading import repeated_trainings

Array = NDArray[np.float64]
FORMS: dict[str, Callable[[Array, Array], float]] = {
    "{}_accuracy": lambda accuracy, n: float(accuracy @ n / n.sum()),
    "worst_class_{}_accuracy": lambda accuracy, n: metrics.worst_class(accuracy),
    "worst_tenth_{}_accuracy": lambda accuracy, n: metrics.lowest_mean(accuracy, 0.1),
    "shrunken_worst_class_{}_accuracy": lambda accuracy, n: metrics.worst_class(metrics.shrunken(accuracy, n)),
    "{}_cvar": lambda accuracy, n: metrics.lowest_mean(accuracy, 0.2),
    "{}_softmin": lambda accuracy, n: metrics.soft_min(accuracy),
    "{}_nsd": lambda accuracy, n: metrics.nsd(accuracy),
    "{}_nsd_sample": lambda accuracy, n: metrics.nsd(accuracy, ddof=1),
}
"""Form of a metric's name -> its value from the accuracies (C,) and image counts (C,) of the classes with images."""


def of_search(tables: Tables) -> dict[str, dict[int, Array]]:
    """Configuration -> seed -> objectives (k,) on val, of those with several seeds in search and race."""
    return _by_config(tables, repeated_trainings(tables.trainings))


def of_confirm(tables: Tables, config: str) -> Array:
    """Objectives (seeds, k) on val of one configuration's confirm trainings."""
    wanted = (pc.field("stage") == "confirm") & (pc.field("config") == config) & (pc.field("state") == "COMPLETE")
    found = _by_config(tables, tables.trainings.filter(wanted)).get(config, {})
    return np.array(list(found.values())).reshape(-1, len(tables.facts["objectives"]))


def _by_config(tables: Tables, trainings: pa.Table) -> dict[str, dict[int, Array]]:
    measured = on_val(tables, trainings["training"].to_pylist())
    found: dict[str, dict[int, Array]] = defaultdict(dict)
    for row in trainings.select(["training", "config", "seed"]).to_pylist():
        if row["training"] in measured:
            found[row["config"]][row["seed"]] = measured[row["training"]]
    return dict(found)


def on_val(tables: Tables, trainings: Collection[str]) -> dict[str, Array]:
    """Training -> objectives (k,) on val; trainings that lack an attack of theirs are absent."""
    names = list(tables.facts["objectives"])
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for kind in {metrics.kind_of(name) for name in names} - {""}:
        of_kind = [name for name in names if metrics.kind_of(name) == kind]
        for training, accuracy, n in _classes(tables, kind, trainings):
            values[training] |= {name: FORMS[metrics.form_of(name)](accuracy, n) for name in of_kind}
    return {key: np.array([row[name] for name in names]) for key, row in values.items() if row.keys() >= set(names)}


def of_metric(tables: Tables, trainings: Collection[str], metric: str) -> dict[str, float]:
    """Training -> one metric on val; trainings that lack its attack are absent."""
    form = FORMS[metrics.form_of(metric)]
    return {key: form(accuracy, n) for key, accuracy, n in _classes(tables, metrics.kind_of(metric), trainings)}


def _classes(tables: Tables, kind: str, trainings: Collection[str]) -> list[tuple[str, Array, Array]]:
    """Each training's accuracies and counts on val under the attack of this word."""
    attacks = [attack for attack, word in KINDS.items() if word == kind]
    wanted = (pc.field("split") == "val") & pc.field("attack").isin(attacks) & (pc.field("n") > 0)
    keys = pa.array(list(trainings), pa.string())
    rows = tables.classes.filter(wanted & pc.field("training").isin(keys)).sort_by("training")
    names, accuracy, n = (rows[name].to_numpy(zero_copy_only=False) for name in ("training", "accuracy", "n"))
    if not len(names):
        return []
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), len(names)]
    spans = [slice(a, b) for a, b in zip(starts, starts[1:], strict=False)]
    return [(str(names[span.start]), accuracy[span], n[span].astype(float)) for span in spans]


def racing_rows(tables: Tables) -> list[Mapping[str, Any]]:
    """The judged trainings as `search.racing` reads them: those with one seed hold their trial's own values."""
    names = list(tables.facts["objectives"])
    several = of_search(tables)
    rows: list[Mapping[str, Any]] = [
        {"config": config, "stage": "search", "state": "COMPLETE", "metrics": dict(zip(names, values, strict=True))}
        for config, seeds in several.items()
        for values in seeds.values()
    ]
    for trial in tables.trials.filter(pc.field("state") == "COMPLETE").to_pylist():
        if trial["config"] not in several:
            values = {name: trial[f"objective/{name}"] for name in names}
            rows.append({"config": trial["config"], "stage": "search", "state": "COMPLETE", "metrics": values})
    return rows
