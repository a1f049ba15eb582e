"""DAFA, Distance-Aware Fair Adversarial training: Lee et al., ICLR 2024, arXiv:2401.12532."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.methods.adversarial import trades_terms
from absld_search.core.methods.base import Epoch, Method, Radius, Step, Teacher, knob
from absld_search.core.methods.weights import Confusion, dafa_weights


@dataclass
class DAFA(Method):
    """Hard classes take weight and radius from the easy classes that they resemble, once, after a warm-up.

    In the last epoch of the warm-up P[i, j] is collected, the mean probability of class j on attacked images of
    class i. For each pair with P[i, i] < P[j, j], class i gains transfer * P[i, j] * P[j, j] and j loses it, from
    weights of one. From then on radius and step are times w_y, and so is the clean cross-entropy.
    Formula: mean of w[y] * CE(S(x), y) + kl_weight * KL(S(x) || S(x')).

    Paper: transfer 1 on ten classes, 1.5 on CIFAR-100 and STL-10; warm-up 70 of 110 epochs.
    Differs from the released code: weights below zero become zero, and classes that are equally hard give each
    other nothing. Built on TRADES only: the PGD form of the release steps and projects twice an iteration,
    which loses radii above eps. Its release trains with Nesterov's momentum (`nesterov=true`).
    """

    cost: ClassVar[str] = "attack 10 (F+B) + F; update 2F+B"

    kl_weight: float = knob(6.0, low=0, doc="beta in the paper")
    transfer: float = knob(1.0, low=0, doc="lambda in the paper; 0 is TRADES")
    warm_up: float = knob(70 / 110, above=0, high=1, doc="share of the epochs before the weights are computed")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.weights = torch.ones(num_classes, device=device)
        self.confusion: Confusion | None = None

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        last_of_warm_up = epoch.number == max(1, round(self.warm_up * epoch.total))
        self.confusion = Confusion(self.num_classes, self.device) if last_of_warm_up else None

    def radius(self, y: Tensor) -> Radius:
        return self.weights[y] * self.eps, self.weights[y] * self.step_size

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = trades_terms(self, student, batch)
        if self.confusion is not None:
            self.confusion.add(terms.adv_logits.detach(), batch.y)
        natural = self.mean(self.weights[batch.y] * terms.natural, batch.y)
        return Step(natural + self.kl_weight * self.mean(terms.robust, batch.y), terms.signals)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        if self.confusion is not None:
            self.weights = dafa_weights(self.confusion.mean(), self.transfer).to(self.weights)
        return {"class_weight": self.weights}

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights = state["weights"].to(self.device)
