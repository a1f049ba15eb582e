"""WAT, Worst-class Adversarial Training: Li & Liu, AAAI 2023, arXiv:2302.04025."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.losses import cross_entropy, kl_div, soft_labels
from absld_search.core.methods.adversarial import trades_attack, trades_terms
from absld_search.core.methods.base import Epoch, Method, Step, Teacher, knob
from absld_search.core.methods.weights import filled


@dataclass
class WAT(Method):
    """Weigh classes like experts in a no-regret game: by the exponential of all they have cost so far.

    After each epoch the TRADES loss of every class is measured under the training attack. With their mean as
    one more arm, w = C * softmax(weight_lr * sum of all costs so far) over C + 1 arms.
    Formula: mean of w[y] * (CE(S(x), y) + kl_weight * KL(S(x) || S(x'))) + w[C + 1] * mean of the same.

    The sum of costs makes the weights nearly one-hot late in a long training; they are logged.
    Differs from the released code: costs are measured on the monitor split where the workload has one, else
    on train.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + F; update 2F+B; PGD on the monitor split every epoch"

    kl_weight: float = knob(6.0, low=0, doc="beta in the paper")
    weight_lr: float = knob(0.1, low=0, doc="eta in the paper; 0 is TRADES times 2C / (C + 1)")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.costs = torch.zeros(num_classes + 1, dtype=torch.float64, device=device)

    def measured_on(self) -> str:
        return "monitor"

    def measure(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = trades_attack(self, student, batch)
        clean_logits = student(batch.x)
        robust = kl_div(soft_labels(clean_logits), student(x_adv))
        return {"cost": cross_entropy(clean_logits, batch.y) + self.kl_weight * robust}

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        if class_means is None or epoch.number == 1:  # costs count from the first trained epoch on
            return
        cost = filled(class_means["cost"])
        self.costs = self.costs + torch.cat([cost, cost.mean()[None]])

    def class_weights(self) -> Tensor:
        """(C + 1,)"""
        return self.num_classes * torch.softmax(self.weight_lr * self.costs, dim=0)

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = trades_terms(self, student, batch)
        losses = terms.natural + self.kl_weight * terms.robust
        weights = self.class_weights().to(losses)
        return Step((weights[batch.y] * losses).mean() + weights[-1] * losses.mean(), terms.signals)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        return {"class_weight": self.class_weights()[:-1]}

    def state_dict(self) -> dict[str, Any]:
        return {"costs": self.costs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.costs = state["costs"].to(self.device)
