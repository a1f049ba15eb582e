"""Standard adversarial training: Madry et al., ICLR 2018, arXiv:1706.06083."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from absld_search.core.data import Batch
from absld_search.core.losses import cross_entropy
from absld_search.core.methods.base import Method, Step, Teacher, signals


@dataclass
class SAT(Method):
    """Train on the worst image that PGD on the cross-entropy finds, started uniformly in the ball.

    Differs from the released code: batch norm is frozen during the attack; the TensorFlow release moves its
    statistics with every attack step.
    """

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        x_adv = self.attack(student, batch.x, lambda x: cross_entropy(student(x), batch.y), start="uniform")
        adv_logits = student(x_adv)
        return Step(cross_entropy(adv_logits, batch.y).mean(), signals(batch.y, adv=adv_logits))
