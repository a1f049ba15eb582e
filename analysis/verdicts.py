"""The stored verdicts of the confirm stage as matrices: a row a seed, a column an image, the same in all arms."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core.attack_names import KINDS
from absld_search.core.results import Tables
from analysis.confirmed import by_training, counted, headline


class Verdicts(NamedTuple):
    """Of one arm: the seeds (S,), verdicts (S, N), the images' classes (N,) as indices into `present`."""

    seeds: list[int]
    correct: NDArray[np.bool_]
    labels: NDArray[np.int64]
    present: NDArray[np.int64]  # the classes that have images, (C,)

    def at(self, seeds: list[int]) -> NDArray[np.bool_]:
        """The rows of these seeds."""
        return self.correct[[self.seeds.index(seed) for seed in seeds]]


def verdicts(tables: Tables, kind: str = "", split: str = "test") -> dict[str, Verdicts]:
    """Arm -> its verdicts under the attack of that `kind`, the headline's by default; arms without any are absent."""
    kind = kind or headline(tables)
    attacks = [attack for attack, word in KINDS.items() if word == kind]
    wanted = (pc.field("split") == split) & pc.field("attack").isin(attacks)
    images = by_training(tables.images.filter(wanted))
    found = {arm: _of_arm(of_arm, images) for arm, of_arm in counted(tables).items()}
    return {arm: one for arm, one in found.items() if one is not None}


def _of_arm(trainings: dict[int, dict[str, Any]], images: dict[str, pa.Table]) -> Verdicts | None:
    keys = {seed: trainings[seed]["training"] for seed in sorted(trainings)}
    rows = {seed: images[key].sort_by("image") for seed, key in keys.items() if key in images}
    if not rows:
        return None
    first = next(iter(rows.values()))
    whole = {seed: table for seed, table in rows.items() if table["image"].equals(first["image"])}
    present, labels = np.unique(first["label"].to_numpy(), return_inverse=True)
    correct: Any = np.stack([table["correct"].to_numpy() for table in whole.values()])
    return Verdicts(list(whole), correct, labels, present)
