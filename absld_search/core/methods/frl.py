"""FRL, Fair-Robust-Learning: Xu et al., ICML 2021, arXiv:2010.06121."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.methods.adversarial import standard_attack, trades_terms
from absld_search.core.methods.base import Epoch, Method, Radius, Step, Teacher, Value, knob
from absld_search.core.methods.weights import filled


@dataclass
class FRL(Method):
    """Bound how much worse any class may be than the average, by multipliers on its loss and on its radius.

    Before each epoch the clean error e_c and the boundary error b_c (robust minus clean) of every class are
    measured with PGD on the cross-entropy. Violations g0 = e_c - e - slack, g1 = b_c - b - slack move
    multipliers l0 += r * g0, l1 += 2 * r * g1, cut at zero and rescaled to a sum of at most `multiplier_limit`.
    Formula: w_c = 1/C + l_c - mean(l);
    sum(w0_y * CE(S(x), y)) / sum(w0_y) + kl_weight * sum(w1_y * KL(S(x) || S(x'))) / sum(w1_y).
    ReMargin: l2 += remargin_lr * g1, radius eps * clip(exp(2 * l2_c), 0.98, 3), steps of a quarter of the
    batch's largest radius. Hard classes get the larger radius, opposite to CFA.

    Starts from a robust model: here, TRADES has the first part of the epochs (`init_from`, `init_share`).
    Differs from the released code: errors are measured on the monitor split where the workload has one, else on
    train; by as many steps as the training attack, where it takes 20. `remargin=false` is its ReWeight file,
    whose slack is 0.1 (and remargin_lr 0.1, unused); the defaults are those of its ReWeight-ReMargin file.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + F; update 2F+B; PGD on the monitor split every epoch"

    kl_weight: float = knob(1.5, low=0, doc="beta in the paper")
    remargin: bool = knob(True, doc="adapt radii too (RMRW); false: losses alone (RW)")
    slack: float = knob(0.07, low=0, doc="d0 = d1 in the release: tolerated gap to the average")
    reweight_lr: float = knob(0.05, low=0, doc="r1, halved every 40 epochs")
    remargin_lr: float = knob(0.2, low=0, doc="r2")
    multiplier_limit: float = knob(0.5, above=0, doc="largest sum of the multipliers")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.multipliers = torch.zeros(3, num_classes, dtype=torch.float64, device=device)  # clean, boundary, margin

    def training_defaults(self) -> dict[str, Value]:
        return {"init_from": "trades"}

    def measured_on(self) -> str:
        return "monitor"

    def measure(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = standard_attack(self, student, batch, (self.eps, self.step_size))  # the same for every class
        clean, robust = ((student(x).argmax(1) != batch.y).float() for x in (batch.x, x_adv))
        return {"clean_error": clean, "robust_error": robust}

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        if class_means is None:
            return
        clean, robust = filled(class_means["clean_error"]), filled(class_means["robust_error"])
        boundary = robust - clean
        gaps = torch.stack([errors - errors.mean() - self.slack for errors in (clean, boundary)])
        rate = self.reweight_lr * 0.5 ** ((epoch.number - 1) // 40)
        weights = self.multipliers[:2] + rate * gaps * gaps.new_tensor([[1.0], [2.0]])
        margins = self.multipliers[2] + self.remargin_lr * gaps[1] * self.remargin
        self.multipliers = torch.stack([*(self._projected(row) for row in weights), margins])

    def _projected(self, multipliers: Tensor) -> Tensor:
        """(C,) cut at zero, its sum at most the limit."""
        positive = multipliers.clamp_min(0)
        return positive * (self.multiplier_limit / positive.sum().clamp_min(self.multiplier_limit))

    def class_weights(self) -> Tensor:
        """(2, C): of the clean and of the boundary loss; the closed form of the release's double loop."""
        multipliers = self.multipliers[:2]
        return 1 / self.num_classes + multipliers - multipliers.mean(1, keepdim=True)

    def radius(self, y: Tensor) -> Radius:
        if not self.remargin:
            return self.eps, self.step_size
        eps = (self.eps * (2 * self.multipliers[2]).exp().clamp(0.98, 3))[y]
        return eps, eps.max().expand_as(eps) / 4

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = trades_terms(self, student, batch)
        clean, boundary = self.class_weights().to(terms.natural)[:, batch.y]
        loss = (clean * terms.natural).sum() / clean.sum()
        return Step(loss + self.kl_weight * (boundary * terms.robust).sum() / boundary.sum(), terms.signals)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        clean, boundary = self.class_weights()
        return {"clean_weight": clean, "boundary_weight": boundary, "margin_multiplier": self.multipliers[2]}

    def state_dict(self) -> dict[str, Any]:
        return {"multipliers": self.multipliers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multipliers = state["multipliers"].to(self.device)
