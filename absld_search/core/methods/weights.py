"""The papers' rules that turn what is known of the classes into weights and radii, as plain functions of (C,)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

GUARD = 1e-5  # added to a survival count of zero, as in the Fair-ARD release


def filled(values: Tensor) -> Tensor:
    """(C,) with the mean of the others in place of what is not finite: a class nobody saw is an average class."""
    seen = values.isfinite()
    average = values[seen].mean() if seen.any() else torch.zeros_like(values[:1]).squeeze()
    return torch.where(seen, values, average)


def fair_ard_weights(
    survived: Tensor, exponent: float, low: float, high: float, renormalise: bool, guard: float = GUARD
) -> Tensor:
    """Fair-ARD (Yue et al., NeurIPS 2023): classes whose attacks succeed in fewer steps weigh more.

    C * k^-b / sum(k^-b) of the mean survived steps k (C,), clipped to [low, high]; the release stops there,
    so that the weights may sum to more than C. `renormalise` rescales them to mean one.
    """
    inverse = (filled(survived.double()) + guard) ** -exponent
    weights = (len(inverse) * inverse / inverse.sum()).clamp(low, high)
    return weights / weights.mean() if renormalise else weights


def dafa_weights(confusion: Tensor, strength: float) -> Tensor:
    """DAFA (Lee et al., ICLR 2024): what is hard takes weight from the easy class that it resembles.

    confusion[i, j]: mean probability of class j on attacked images of class i, (C, C). What one class gains
    the other loses, so the weights sum to C, unless the floor at zero, which the release lacks, was needed.
    """
    p = torch.nan_to_num(confusion.double())
    own = p.diagonal()
    taken = torch.where(own[:, None] < own[None, :], p * own[None, :], torch.zeros_like(p))  # by i from easier j
    return (1 + strength * (taken - taken.T).sum(1)).clamp_min(0)


def cfa_scale(robust_accuracy: Tensor, base: float) -> Tensor:
    """CFA (Wei et al., CVPR 2023): base + last epoch's training robust accuracy (C,): less for hard classes."""
    return base + filled(robust_accuracy.double())


def kl_ball_weights(cost: Tensor, seen: Tensor, radius: float, rounds: int = 100) -> Tensor:
    """FAAL (Zhang et al., CVPR 2024): argmax_p sum(p * cost) over the simplex with KL(uniform || p) <= radius.

    cost (C,); only classes `seen` (C,) take part, the others get zero. With p_c proportional to
    1 / (nu - cost_c) the divergence falls as nu grows, so nu > max(cost) is found by bisection.
    """
    cost = torch.where(seen, cost.double(), cost.double().new_tensor(float("-inf")))
    below = torch.where(seen, cost.max() - cost, torch.zeros_like(cost))
    size = below.max().clamp_min(1e-300)  # the same problem in units of the spread: any scale of cost will do
    below, count = below / size, seen.sum()

    def spread(gap: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.where(seen, 1 / (gap + below), torch.zeros_like(below))
        p = p / p.sum()
        logs = torch.where(seen, p.clamp_min(1e-300).log(), torch.zeros_like(p))
        return p, -count.double().log() - logs.sum() / count

    low, high = below.new_tensor(-40.0), below.new_tensor(40.0)  # log of nu - max(cost)
    for _ in range(rounds):
        middle = (low + high) / 2
        wide = spread(middle.exp())[1] <= radius
        low, high = torch.where(wide, low, middle), torch.where(wide, middle, high)
    return spread(high.exp())[0]


class Confusion:
    """Mean probabilities of all classes per true class, added up over batches."""

    def __init__(self, num_classes: int, device: torch.device | str) -> None:
        self.sums = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=device)
        self.count = torch.zeros(num_classes, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, logits: Tensor, y: Tensor) -> None:
        """Take in a batch: (B, C), (B,)."""
        self.sums.index_add_(0, y, logits.double().softmax(1))
        self.count.index_add_(0, y, torch.ones_like(y, dtype=torch.float64))

    def mean(self) -> Tensor:
        """(C, C): row i is the mean prediction on class i; nan for a class not seen."""
        return self.sums / self.count[:, None]


def total_of(class_means: Mapping[str, Any], signal: str, per_class: float | None = None) -> Tensor:
    """The sum of a signal per class over the epoch, divided by `per_class` samples where that is given."""
    total = class_means[signal] * class_means["count"]
    return total if per_class is None else total / per_class
