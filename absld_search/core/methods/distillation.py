"""What the methods with a teacher share: the scale of a divergence, and the step of soft labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.attacks import frozen_batch_norm
from absld_search.core.data import Batch
from absld_search.core.losses import CrossEntropy, Divergence, kl_div, soft_labels
from absld_search.core.methods.base import Method, Objective, Step, Teacher, knob, signals

REDUCTIONS = ("mean", "batchmean")


@dataclass
class Distillation(Method):
    """A method that learns from a teacher's soft labels."""

    teacher_roles: ClassVar[tuple[str, ...]] = ("robust",)
    cost: ClassVar[str] = "attack 10 (F+B); update 2F+B, 1 T-F"

    kl_reduction: str = knob("mean", options=REDUCTIONS, doc="mean: 1/C of the divergence; batchmean: all of it")

    def notice(self, adv_logits: Tensor, y: Tensor) -> None:
        """Called with the adversarial logits (B, C) of every training batch."""

    def reduced(self, divergences: Tensor, y: Tensor) -> Tensor:
        """Divergences (B,), each a sum over classes, as the loss counts them."""
        total = self.mean(divergences, y)
        return total / self.num_classes if self.kl_reduction == "mean" else total

    def soft_label_step(
        self, student: nn.Module, batch: Batch, targets: tuple[Tensor, Tensor], adv_weight: float,
        objective: Objective | None = None, divergence: Callable[[Tensor, Tensor], Tensor] = kl_div,
    ) -> Step:  # fmt: skip
        """RSLAD's step (Zi et al., ICCV 2021, arXiv:2108.07969) for any (adversarial, clean) soft labels.

        The attack ascends KL(adv labels || student), unless told another `objective`; the loss is `adv_weight`
        of the adversarial and the rest of the clean `divergence` of labels and student's logits.
        """
        adv_targets, clean_targets = targets
        x_adv = self.attack(student, batch, objective or Divergence(adv_targets))
        adv_logits, clean_logits = student(x_adv), student(batch.x)
        self.notice(adv_logits.detach(), batch.y)
        adv, clean = divergence(adv_targets, adv_logits), divergence(clean_targets, clean_logits)
        loss = adv_weight * self.reduced(adv, batch.y) + (1 - adv_weight) * self.reduced(clean, batch.y)
        found = signals(batch.y, adv=adv_logits, clean=clean_logits)
        return Step(loss, {**found, "adv_kl": adv.detach(), "clean_kl": clean.detach()})


def chase_teacher(teacher: Teacher) -> Objective:
    """AdaAD's attack objective: KL(T(x') || S(x')), the gradient flowing through both networks."""
    return lambda logits, x: kl_div(soft_labels(teacher(x)), logits)


def attack_objective(
    target: str, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch, plain: Tensor
) -> Objective | None:
    """What an attack ascends by name; `plain` (B, C): the labels as they are. None for "tempered"."""
    if target == "tempered":
        return None
    if target == "ce":
        return CrossEntropy(batch.y)
    if target == "adaad":
        return chase_teacher(teachers["robust"])
    if target == "trades":
        with torch.no_grad(), frozen_batch_norm(student):
            plain = soft_labels(student(batch.x))
    return Divergence(plain)


def matched_pull(plain: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A divergence from the plain labels (B, C), scaled per sample so that its gradient on the student's logits is as
    long as that of the divergence from other labels: the length of tempering without its direction."""

    def divergence(targets: Tensor, logits: Tensor) -> Tensor:
        with torch.no_grad():
            predicted = soft_labels(logits)
            own = (predicted - plain).norm(dim=1).clamp_min(1e-12)
            scale = torch.where((targets == plain).all(1), 1.0, (predicted - targets).norm(dim=1) / own)
        return scale * kl_div(plain, logits)

    return divergence


def distrust(adv_teacher_logits: Tensor, y: Tensor, exponent: float) -> Tensor:
    """IAD's 1 - p_T(x')[y] ** exponent (Zhu et al., ICLR 2022): (B, C), (B,) -> (B,) in [0, 1]."""
    with torch.no_grad():
        right = soft_labels(adv_teacher_logits).gather(1, y[:, None])[:, 0]
        return 1 - right**exponent
