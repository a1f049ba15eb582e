"""AdaAD and AdaIAD, Adaptive Adversarial Distillation: Huang et al., CVPR 2023, pages 24668-24677."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from absld_search.core.data import Batch
from absld_search.core.losses import kl_div, soft_labels
from absld_search.core.methods.base import Epoch, Step, Teacher, knob, signals
from absld_search.core.methods.distillation import Distillation, chase_teacher, distrust


@dataclass
class AdaAD(Distillation):
    """The teacher takes part in the attack: find where both networks disagree most, and agree there.

    Formula: a * D(T(x'), S(x')) + (1 - a) * D(T(x), S(x)) with a = adv_weight; x' ascends KL(T(x') || S(x'))
    with gradient through both networks. Every attack step asks the teacher: by far the dearest baseline.

    Differs from the released code: for 100 classes it sums over classes, which is `kl_reduction=batchmean`;
    its argparse default radius is 16/255, its README's commands say 8/255, as here.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + 10 T-(F+B); update F+B, 1 T-F (twice that where adv_weight < 1)"

    adv_weight: float = knob(1.0, low=0, high=1, doc="share of the adversarial term; the rest is clean")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        teacher = teachers["robust"]
        x_adv = self.attack(student, batch, chase_teacher(teacher))
        with torch.no_grad():
            adv_targets = soft_labels(teacher(x_adv))
        adv_logits = student(x_adv)
        loss = self.adv_weight * self.reduced(kl_div(adv_targets, adv_logits), batch.y)
        if self.adv_weight == 1:
            return Step(loss, signals(batch.y, adv=adv_logits))
        clean_logits = student(batch.x)
        clean = kl_div(soft_labels(teacher.clean_logits(batch)), clean_logits)
        loss = loss + (1 - self.adv_weight) * self.reduced(clean, batch.y)
        return Step(loss, signals(batch.y, adv=adv_logits, clean=clean_logits))


@dataclass
class AdaIAD(Distillation):
    """AdaAD's attack, softened labels, and IAD's distrust of a teacher that fails on the attacked image.

    Formula: t^2 * KL(T(x') / t || S(x') / t), and after the first `begin` of the epochs
    + (1 - u) * KL(S(x) || S(x')) with u = p_T(x')[y] ** trust_exponent; x' as AdaAD.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + 10 T-(F+B); update 2F+B, 1 T-F"

    kl_reduction: str = knob("batchmean", options=("mean", "batchmean"), doc="mean: 1/C of the divergence")
    temperature: float = knob(30.0, above=0, doc="t, of teacher and student")
    trust_exponent: float = knob(0.1, low=0, doc="beta in IAD")
    begin: float = knob(60 / 200, low=0, high=1, doc="share of the epochs before introspection begins")

    introspects = False  # until `begin`

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, torch.Tensor] | None = None) -> None:
        self.introspects = epoch.past(self.begin)

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        x_adv = self.attack(student, batch, chase_teacher(teachers["robust"]))
        with torch.no_grad():
            teacher_logits = teachers["robust"](x_adv)
        clean_logits, adv_logits = student(batch.x), student(x_adv)
        targets = soft_labels(teacher_logits, self.temperature)
        losses = self.temperature**2 * kl_div(targets, adv_logits / self.temperature)
        if self.introspects:
            doubt = distrust(teacher_logits, batch.y, self.trust_exponent)
            losses = losses + doubt * kl_div(soft_labels(clean_logits), adv_logits)
        return Step(self.reduced(losses, batch.y), signals(batch.y, adv=adv_logits, clean=clean_logits))
