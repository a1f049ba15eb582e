"""ARD, Adversarially Robust Distillation: Goldblum et al., AAAI 2020, arXiv:1905.09747."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from absld_search.core.data import Batch
from absld_search.core.losses import cross_entropy, kl_div, soft_labels
from absld_search.core.methods.adversarial import standard_attack
from absld_search.core.methods.base import Step, Teacher, knob, signals
from absld_search.core.methods.distillation import Distillation


@dataclass
class ARD(Distillation):
    """Say on the attacked image what the robust teacher says on the clean one, both softened.

    Formula: a * t^2 * D(T(x) / t, S(x') / t) + (1 - a) * CE(S(x), y) with a = distill_weight, t = temperature;
    x' ascends CE(S(x'), y).

    Differs from the released code: batch norm is frozen during the attack (`attack_mode=train` is the
    release); the clean forward, which counts for nothing at a = 1, is left out there; the second drop of the
    learning rate happens (`drop_once=true` is the release).
    """

    attack_start: str = knob("uniform", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")
    temperature: float = knob(30.0, above=0, doc="t, of teacher and student")
    distill_weight: float = knob(1.0, low=0, high=1, doc="a, share of the divergence; the rest is clean CE")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        targets = soft_labels(teachers["robust"].clean_logits(batch), self.temperature)
        adv_logits = student(standard_attack(self, student, batch))
        divergence = self.reduced(kl_div(targets, adv_logits / self.temperature), batch.y)
        loss = self.distill_weight * self.temperature**2 * divergence
        if self.distill_weight == 1:
            return Step(loss, signals(batch.y, adv=adv_logits))
        clean_logits = student(batch.x)
        loss = loss + (1 - self.distill_weight) * self.mean(cross_entropy(clean_logits, batch.y), batch.y)
        return Step(loss, signals(batch.y, adv=adv_logits, clean=clean_logits))
