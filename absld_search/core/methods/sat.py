"""Standard adversarial training: Madry et al., ICLR 2018, arXiv:1706.06083."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from absld_search.core.data import Batch
from absld_search.core.methods.adversarial import standard_terms
from absld_search.core.methods.base import Method, Step, Teacher, knob


@dataclass
class SAT(Method):
    """Train on the worst image that PGD on the cross-entropy finds, started uniformly in the ball.

    Formula: CE(S(x'), y), where x' ascends CE(S(x'), y).

    Differs from the released code: batch norm is frozen during the attack; the TensorFlow release moves its
    statistics with every attack step.
    """

    cost: ClassVar[str] = "attack 10 (F+B); update F+B"

    attack_start: str = knob("uniform", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = standard_terms(self, student, batch)
        return Step(self.mean(terms.robust, batch.y), terms.signals)
