"""IAD, Introspective Adversarial Distillation: Zhu et al., ICLR 2022, arXiv:2106.04928."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from absld_search.core.data import Batch
from absld_search.core.losses import kl_div, soft_labels
from absld_search.core.methods.adversarial import standard_attack
from absld_search.core.methods.base import Epoch, Step, Teacher, knob, signals
from absld_search.core.methods.distillation import Distillation, distrust


@dataclass
class IAD(Distillation):
    """Where the teacher itself fails on the attacked image, trust the student's own clean prediction too.

    Formula (IAD-I, on ARD): t^2 * KL(T(x) / t || S(x') / t), and after the first `begin` of the epochs
    + (1 - u) * KL(S(x) || S(x')) with u = p_T(x')[y] ** trust_exponent; x' ascends CE(S(x'), y).

    As in the release, u does not multiply the teacher's term, and gradient flows into S(x).
    Differs from the released code: batch norm is frozen during the attack (`attack_mode=train` is the
    release); no unused forward passes; the second drop of the learning rate happens (`drop_once=true`).
    Not built: IAD-II, its form with a clean teacher.
    """

    cost: ClassVar[str] = "attack 10 (F+B); update 2F+B, 2 T-F"

    attack_start: str = knob("uniform", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")
    kl_reduction: str = knob("batchmean", options=("mean", "batchmean"), doc="mean: 1/C of the divergence")
    temperature: float = knob(1.0, above=0, doc="t, of teacher and student")
    trust_exponent: float = knob(0.1, low=0, doc="beta in the paper")
    begin: float = knob(60 / 200, low=0, high=1, doc="share of the epochs before introspection begins")

    introspects = False  # until `begin`

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, torch.Tensor] | None = None) -> None:
        self.introspects = epoch.past(self.begin)

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        x_adv = standard_attack(self, student, batch)
        targets = soft_labels(teachers["robust"].clean_logits(batch), self.temperature)
        clean_logits, adv_logits = student(batch.x), student(x_adv)
        losses = self.temperature**2 * kl_div(targets, adv_logits / self.temperature)
        if self.introspects:
            with torch.no_grad():
                doubt = distrust(teachers["robust"](x_adv), batch.y, self.trust_exponent)
            losses = losses + doubt * kl_div(soft_labels(clean_logits), adv_logits)
        found = signals(batch.y, adv=adv_logits, clean=clean_logits)
        return Step(self.reduced(losses, batch.y), found)
