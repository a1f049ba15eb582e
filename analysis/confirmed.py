"""What the confirm stage measured, recomputed from the stored outcome of every test image.

The confirm stage trains each arm's chosen trial again, with fresh seeds that are the same in all arms.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core import metrics
from absld_search.core.attack_names import KINDS
from absld_search.core.results import Tables


class Seed(NamedTuple):
    """One confirm training on test: metrics by name; robust accuracy and number of images per class, (C,)."""

    measures: dict[str, float]
    robust: NDArray[np.float64]
    n: NDArray[np.int64]


def chosen(tables: Tables) -> dict[str, dict[str, Any]]:
    """Arm -> its chosen trial's row; arms without one are absent."""
    rows = tables.trials.filter(pc.field("chosen")).sort_by("number").to_pylist()
    return {row["arm"]: row for row in reversed(rows)}


def confirm_trainings(tables: Tables, arm: str) -> list[dict[str, Any]]:
    """Rows of the confirm trainings of an arm's choice, by seed."""
    trial = chosen(tables).get(arm)
    if trial is None:
        return []
    wanted = (pc.field("config") == trial["config"]) & (pc.field("stage") == "confirm")
    return tables.trainings.filter(wanted).sort_by("seed").to_pylist()


def confirmed(tables: Tables) -> dict[str, dict[int, Seed]]:
    """Arm -> seed -> what its confirm training reached on test; every arm of the study is a key."""
    num_classes = len(tables.facts["classes"])
    images = tables.images.filter(pc.field("split") == "test")
    # A study that was asked for more seeds before may hold some arms' and not the others'.
    indices = tables.facts.get("confirm_seed_indices")

    def asked(seed: int) -> bool:
        return indices is None or seed in indices

    found: dict[str, dict[int, Seed]] = {}
    for arm in tables.facts["arms"]:
        complete = [row for row in confirm_trainings(tables, arm) if row["state"] == "COMPLETE" and asked(row["seed"])]
        of_arm = {row["seed"]: (images.filter(pc.field("training") == row["training"]), row) for row in complete}
        found[arm] = {
            seed: _seed(rows, num_classes, training["seconds"])
            for seed, (rows, training) in of_arm.items()
            if rows.num_rows
        }
    return found


def _seed(images: pa.Table, num_classes: int, seconds: float | None) -> Seed:
    measures: dict[str, float] = {} if seconds is None else {"minutes": seconds / 60}
    robust, n = np.full(num_classes, np.nan), np.zeros(num_classes, dtype=np.int64)
    for attack, kind in KINDS.items():
        rows = images.filter(pc.field("attack") == attack)
        if not rows.num_rows:
            continue
        correct, labels = (rows[name].to_numpy() for name in ("correct", "label"))
        measures |= metrics.summary(kind, correct, labels, num_classes)
        if kind == "robust":
            robust, n = metrics.class_accuracies(correct, labels, num_classes)
    return Seed(measures, robust, n)
