"""What other images would make of a configuration's objectives: val's, drawn again, the same ones for all."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core import metrics
from absld_search.core.attack_names import KINDS
from absld_search.core.results import Tables
from absld_search.search import stats
from analysis.confirmed import by_training
from analysis.repeats import FORMS

Array = NDArray[np.float64]


def shifts(tables: Tables, trainings: Mapping[str, Sequence[str]], draws: int) -> Array | None:
    """(draws, N, k): how far each configuration's mean objectives move when images are drawn again, class by class.

    Around 0: a minimum of images drawn again lies below the minimum at hand, as that does below the true one, and most
    so where classes are alike. Uncentred, a fair configuration would seem the less sure for it.
    `trainings`: configuration -> the keys of those whose mean it is. None where a verdict is missing, as where
    somebody else's images were judged.
    """
    kinds = list(dict.fromkeys(metrics.kind_of(name) for name in tables.facts["objectives"]))
    keys = [key for of in trainings.values() for key in of]
    found = [_verdicts(tables, kind, keys) for kind in kinds]
    if not all(trainings.values()) or any(one is None for one in found):
        return None
    labels = found[0][1]  # type: ignore[index]
    correct = np.concatenate([one[0] for one in found])  # type: ignore[index]
    moved = stats.resampled(correct, labels, draws)  # (draws, kinds * S, C)
    n, columns = np.bincount(labels).astype(float), []
    for name in tables.facts["objectives"]:
        first, form = kinds.index(metrics.kind_of(name)) * len(keys), FORMS[metrics.form_of(name)]
        values = np.array([[form(one, n) for one in draw[first : first + len(keys)]] for draw in moved])
        columns.append(values - values.mean(axis=0))
    return _of_configurations(np.stack(columns, axis=-1), trainings)


def _of_configurations(each: Array, trainings: Mapping[str, Sequence[str]]) -> Array:
    """Means (draws, N, k) over the trainings (draws, S, k) of every configuration."""
    ends = np.cumsum([len(of) for of in trainings.values()])
    return np.stack([part.mean(axis=1) for part in np.split(each, ends[:-1], axis=1)], axis=1)


def _verdicts(tables: Tables, kind: str, keys: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.int64]] | None:
    """Verdicts (S, N) on val and the images' classes (N,), counted from 0; None where trainings lack them."""
    attacks = [attack for attack, word in KINDS.items() if word == kind]
    wanted = (pc.field("split") == "val") & pc.field("attack").isin(attacks)
    of = by_training(tables.images.filter(wanted & pc.field("training").isin(pa.array(list(keys), pa.string()))))
    rows = [of[key].sort_by("image") for key in keys if key in of]
    if not keys or len(rows) < len(keys) or not all(row["image"].equals(rows[0]["image"]) for row in rows):
        return None
    labels = np.unique(rows[0]["label"].to_numpy(), return_inverse=True)[1]
    return np.stack([row["correct"].to_numpy(zero_copy_only=False) for row in rows]), labels
