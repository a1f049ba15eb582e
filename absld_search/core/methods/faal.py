"""FAAL, Fairness-Aware Adversarial Learning: Zhang et al., CVPR 2024, arXiv:2402.17729."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.losses import soft_labels
from absld_search.core.methods.adversarial import BASES, terms
from absld_search.core.methods.base import Method, Step, Teacher, Value, knob
from absld_search.core.methods.weights import kl_ball_weights


@dataclass
class FAAL(Method):
    """In every batch, train for the worst mix of classes within a divergence of `radius_kl` from the even one.

    With m_c the class's mean of max_{j != y} p_j - p_y on x', and n_c its images in the batch:
    p = argmax sum(p_c * n_c * m_c) over distributions with KL(uniform || p) <= radius_kl.
    Formula: C / B * sum(p[y_i] * loss_i), the loss of `base` (sat: CE(S(x'), y)).

    Starts from a robust model and fine-tunes: here, TRADES has the first part of the epochs (`init_from`,
    `init_share`), where the paper takes two epochs.
    Differs from the released code: the optimum is p_c proportional to 1 / (nu - n_c * m_c), found by bisection,
    where it calls a convex solver; classes absent from the batch take no part, where it gives them weight that
    nothing answers to. Bases MART and AWP are not built.
    """

    cost: ClassVar[str] = "as its base, + a bisection over C numbers"

    attack_start: str = knob("uniform", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")
    base: str = knob("sat", options=BASES, doc="whose loss is weighted")
    kl_weight: float = knob(6.0, low=0, doc="on trades: weight of the robust term")
    radius_kl: float = knob(0.5, low=0, doc="r in the paper; 0 is the base")

    def training_defaults(self) -> dict[str, Value]:
        return {"init_from": "trades"}

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        found = terms(self.base, self, student, batch)
        losses = found.natural + (self.kl_weight if self.base == "trades" else 1.0) * found.robust
        weights, seen = self.class_weights(found.adv_logits.detach(), batch.y)
        shares = (seen.sum() * weights).to(losses)[batch.y]
        return Step(self.mean(shares * losses, batch.y), found.signals)

    def class_weights(self, adv_logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(p (C,), which classes are in the batch (C,))."""
        probability = soft_labels(adv_logits.double())
        right = probability.gather(1, y[:, None])[:, 0]
        wrong = probability.scatter(1, y[:, None], -1.0).amax(1)
        summed = torch.zeros(self.num_classes, dtype=torch.float64, device=y.device)
        cost = summed.index_add(0, y, wrong - right)  # n_c times the mean over the class
        seen = torch.bincount(y, minlength=self.num_classes) > 0
        return kl_ball_weights(cost, seen, self.radius_kl), seen
