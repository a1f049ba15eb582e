"""RSLAD: Zi et al., ICCV 2021, arXiv:2108.07969."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from absld_search.core.data import Batch
from absld_search.core.losses import soft_labels
from absld_search.core.methods.base import Step, Teacher, knob
from absld_search.core.methods.distillation import Distillation


@dataclass
class RSLAD(Distillation):
    """Robust soft labels everywhere: the teacher's clean prediction guides the attack and both losses.

    Formula: adv_weight * D(T(x), S(x')) + (1 - adv_weight) * D(T(x), S(x)), where x' ascends KL(T(x) || S(x')).
    No hard labels, no temperature.

    Differs from the paper: D is averaged over batch and classes, as in the released code: 1/C of the
    divergence in the paper's equation. `kl_reduction=batchmean` is the equation. For 100 classes the release
    multiplies by 10, so that the scale is that of 10 classes.
    """

    adv_weight: float = knob(5 / 6, low=0, high=1, doc="share of the adversarial term; the rest is clean")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        labels = soft_labels(teachers["robust"].clean_logits(batch))
        return self.soft_label_step(student, batch, (labels, labels), self.adv_weight)

    def repeatable(self) -> bool:
        return True
