"""BAT, Balance Adversarial Training: Sun et al., AAAI 2023, arXiv:2209.07534."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from absld_search.core import attacks
from absld_search.core.data import Batch
from absld_search.core.losses import cross_entropy, kl_div, soft_labels
from absld_search.core.methods.base import Method, Step, Teacher, knob, signals


@dataclass
class BAT(Method):
    """Stop the attack where a sample crosses its boundary: train on the last image still right and the first wrong.

    Formula: CE(S(x_clean), y) + kl_weight * KL(S(x) || S(x_adv)) + KL(S(x_clean) || U) + KL(S(x_adv) || U),
    U uniform, each of the last two with uniform_weight. x_clean is the last iterate classified correctly, x_adv
    the first that is not plus `overshoot` more steps, of one attack that ascends KL(S(x) || S(x')). A sample
    that never flips gives its last iterate to both; one that starts wrong gives its start as x_clean.

    Differs from the released code: both images come from one trajectory, where it runs two with starts of
    their own, at twice the cost; the batch keeps its order. As in the release the uniform terms stand in the
    outer loss; the abstract speaks of the generation of adversarial images.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + F (release: up to 20); update 3F+B"

    kl_weight: float = knob(6.0, low=0, doc="beta in the paper")
    uniform_weight: float = knob(1.0, low=0, doc="weight of each divergence to the uniform prediction")
    overshoot: int = knob(1, low=0, doc="tau in the release: steps beyond the first error")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        x_clean, x_adv = self.boundary(student, batch)
        right, wrong, plain = student(x_clean), student(x_adv), student(batch.x)
        uniform = sum(kl_div(soft_labels(logits), torch.zeros_like(logits)) for logits in (right, wrong))
        losses = cross_entropy(right, batch.y) + self.kl_weight * kl_div(soft_labels(plain), wrong)
        losses = losses + self.uniform_weight * uniform
        return Step(self.mean(losses, batch.y), signals(batch.y, adv=wrong, clean=plain))

    def boundary(self, student: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(last image still right, first image wrong and a bit), each shaped as x."""
        noise = attacks.start_noise(batch.x, self.attack_start, self.eps)
        low, high = (batch.x - self.eps).clamp(0, 1), (batch.x + self.eps).clamp(0, 1)
        x_adv = last_right = (batch.x + noise).clamp(0, 1)
        flipped = torch.zeros_like(batch.y, dtype=torch.bool)
        steps_left = torch.full_like(batch.y, self.overshoot)
        with torch.no_grad(), attacks.frozen_batch_norm(student):
            clean_labels = soft_labels(student(batch.x))
        with self.attacking(student):
            for _ in range(self.num_steps):
                gradient, logits = _ascent(student, x_adv, clean_labels)
                flipped = flipped | (logits.argmax(1) != batch.y)
                last_right = torch.where(_spread(flipped, x_adv), last_right, x_adv)
                moves = ~flipped | (steps_left > 0)
                steps_left = steps_left - flipped.long()
                stepped = (x_adv + self.step_size * gradient.sign()).clamp(low, high)
                x_adv = torch.where(_spread(moves, x_adv), stepped, x_adv)
        return torch.where(_spread(flipped, x_adv), last_right, x_adv), x_adv


def _ascent(student: nn.Module, x_adv: Tensor, clean_labels: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient of the divergence at x_adv, logits there), both detached."""
    x = x_adv.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = student(x)
        (gradient,) = torch.autograd.grad(kl_div(clean_labels, logits).sum(), x)
    return gradient, logits.detach()


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """(B,) shaped so that it selects whole images of x."""
    return values.view(-1, *[1] * (x.ndim - 1))
