"""RSLAD: Zi et al., ICCV 2021, arXiv:2108.07969."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from absld_search.core.data import Batch
from absld_search.core.losses import soft_labels
from absld_search.core.methods.base import Method, Step, Teacher, distill, knob


@dataclass
class RSLAD(Method):
    """Robust soft labels everywhere: the teacher's clean prediction guides the attack and both losses.

    No hard labels, no temperature. The loss is averaged over batch and classes, as in the released code: 1/C
    of the divergence in the paper's equation.
    """

    teacher_roles: ClassVar[tuple[str, ...]] = ("robust",)

    adv_weight: float = knob(5 / 6, low=0, high=1, doc="share of the adversarial term; the rest is clean")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        labels = soft_labels(teachers["robust"].clean_logits(batch))
        return distill(self, student, batch, (labels, labels), self.adv_weight)
