"""What the methods without a teacher share: the two attacks and terms of standard training and of TRADES."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from absld_search.core.attacks import frozen_batch_norm
from absld_search.core.data import Batch
from absld_search.core.losses import CrossEntropy, Divergence, cross_entropy, kl_div, soft_labels
from absld_search.core.methods.base import Method, Radius, signals

BASES = ("trades", "sat")


class Terms(NamedTuple):
    """Per-sample losses (B,) with gradient, and the logits (B, C) they come from."""

    natural: Tensor  # cross-entropy on clean images; zeros where a method does not look at them
    robust: Tensor  # what the adversarial images cost
    adv_logits: Tensor
    clean_logits: Tensor | None
    signals: dict[str, Tensor]


def standard_attack(method: Method, student: nn.Module, batch: Batch, radius: Radius | None = None) -> Tensor:
    """x_adv that ascends the cross-entropy (Madry et al., ICLR 2018, arXiv:1706.06083)."""
    return method.attack(student, batch, CrossEntropy(batch.y), radius)


def trades_attack(method: Method, student: nn.Module, batch: Batch) -> Tensor:
    """x_adv that ascends KL(S(x) || S(x')) (Zhang et al., ICML 2019, arXiv:1901.08573)."""
    with torch.no_grad(), frozen_batch_norm(student):
        clean_labels = soft_labels(student(batch.x))
    return method.attack(student, batch, Divergence(clean_labels))


def standard_terms(method: Method, student: nn.Module, batch: Batch) -> Terms:
    """Cross-entropy on adversarial images alone."""
    adv_logits = student(standard_attack(method, student, batch))
    robust = cross_entropy(adv_logits, batch.y)
    return Terms(torch.zeros_like(robust), robust, adv_logits, None, signals(batch.y, adv=adv_logits))


def trades_terms(method: Method, student: nn.Module, batch: Batch) -> Terms:
    """CE(S(x), y) and KL(S(x) || S(x')), the gradient flowing into both sides of the divergence."""
    x_adv = trades_attack(method, student, batch)
    clean_logits, adv_logits = student(batch.x), student(x_adv)
    robust = kl_div(soft_labels(clean_logits), adv_logits)
    found = signals(batch.y, adv=adv_logits, clean=clean_logits)
    return Terms(cross_entropy(clean_logits, batch.y), robust, adv_logits, clean_logits, found)


def terms(base: str, method: Method, student: nn.Module, batch: Batch) -> Terms:
    """The terms of "trades" or "sat"."""
    return trades_terms(method, student, batch) if base == "trades" else standard_terms(method, student, batch)
