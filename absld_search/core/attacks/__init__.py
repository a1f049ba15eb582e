"""Attacks as functions of (model, x, y, radius, draws). Inputs in [0, 1]; a radius may be one number or one per image.

`linf.pgd` is the one that training uses; all others evaluate.
"""

from absld_search.core.attacks.adaptive import Adaptive
from absld_search.core.attacks.apgd import Apgd, ApgdTargeted
from absld_search.core.attacks.base import Attack, BatchDraws, Draws, ImageDraws, inputs_only
from absld_search.core.attacks.confusion import ConfusedPgd, beliefs, most_confused
from absld_search.core.attacks.fab import FabTargeted
from absld_search.core.attacks.fgsm import Fgsm
from absld_search.core.attacks.linf import (
    LossFn,
    ascend,
    frozen_batch_norm,
    input_gradient,
    per_sample,
    pgd,
    start_noise,
)
from absld_search.core.attacks.pgd import PGD_SAT, Pgd, pgd_trades
from absld_search.core.attacks.square import Square
from absld_search.core.attacks.transfer import Transfer

__all__ = [
    "PGD_SAT", "Adaptive", "Apgd", "ApgdTargeted", "Attack", "BatchDraws", "ConfusedPgd", "Draws", "FabTargeted",
    "Fgsm", "ImageDraws", "LossFn", "Pgd", "Square", "Transfer", "ascend", "beliefs", "frozen_batch_norm",
    "input_gradient", "inputs_only", "most_confused", "per_sample", "pgd", "pgd_trades", "start_noise",
]  # fmt: skip
