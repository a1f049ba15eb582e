"""Adversarial examples of another network."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from absld_search.core.attacks.base import Attack, Draws, Radius, inputs_only
from absld_search.core.attacks.linf import frozen_batch_norm
from absld_search.core.attacks.pgd import Pgd


@dataclass(frozen=True)
class Transfer:
    """What `attack` finds against `source`, handed to the model, which is asked nothing while it is made.

    A model that such examples fool more often than its own gradients do hides its gradients (Athalye, Carlini and
    Wagner, ICML 2018, arXiv:1802.00420). The attack runs to its last iterate: examples that only just fool the
    source do not travel.
    """

    source: nn.Module
    attack: Attack = field(default_factory=lambda: Pgd(drop=False, loss="margin"))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        with frozen_batch_norm(self.source), inputs_only(self.source):
            return self.attack(self.source, x, y, eps, draws)
