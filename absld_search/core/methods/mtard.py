"""MTARD, Multi-Teacher Adversarial Robustness Distillation: Zhao et al., ECCV 2022."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.losses import kl_div, soft_labels
from absld_search.core.methods.adversarial import standard_attack
from absld_search.core.methods.base import Epoch, Step, Teacher, knob, signals
from absld_search.core.methods.distillation import Distillation


@dataclass
class MTARD(Distillation):
    """Two teachers: a robust one for attacked images, an accurate one for clean images, kept in balance.

    Formula: w_a * D(T_robust(x'), S(x')) + w_c * D(T_clean(x), S(x)); x' ascends CE(S(x'), y). After every
    batch, with r the losses over those of the first batch,
    w_c <- w_c - balance_lr * lr_scale * (w_c - r_c / (r_a + r_c)) and w_a = 1 - w_c; both start at 1/2.

    The update is written as the release computes it. `clean_targets=robust_adv` is what Fair-MTARD's release
    computes: the student's clean output learns the robust teacher's output on x', and the clean teacher is
    asked for nothing. Not built: B-MTARD's entropy temperature (TPAMI 2024).
    """

    teacher_roles: ClassVar[tuple[str, ...]] = ("robust", "clean")
    cost: ClassVar[str] = "attack 10 (F+B); update 2F+B, 2 T-F"

    balance_lr: float = knob(0.025, low=0, high=1, doc="eta in the paper; 0 keeps both weights at 1/2")
    clean_targets: str = knob("clean", options=("clean", "robust_adv"), doc="whose labels the clean images get")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.clean_weight = torch.tensor(0.5, device=device)
        self.first = torch.full((2,), float("nan"), device=device)  # (adversarial, clean) loss of the first batch
        self.lr_scale = 1.0

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        self.lr_scale = epoch.lr_scale

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        x_adv = standard_attack(self, student, batch)
        with torch.no_grad():
            adv_targets = soft_labels(teachers["robust"](x_adv))
            clean_targets = soft_labels(teachers["clean"].clean_logits(batch))
        if self.clean_targets == "robust_adv":
            clean_targets = adv_targets
        adv_logits, clean_logits = student(x_adv), student(batch.x)
        adv = self.reduced(kl_div(adv_targets, adv_logits), batch.y)
        clean = self.reduced(kl_div(clean_targets, clean_logits), batch.y)
        weight = self.clean_weight.to(clean)
        self._balance(torch.stack([adv, clean]).detach().to(self.first))
        return Step((1 - weight) * adv + weight * clean, signals(batch.y, adv=adv_logits, clean=clean_logits))

    def _balance(self, losses: Tensor) -> None:
        """Move the clean weight towards the clean loss's share of what is left of both losses (2,)."""
        self.first = torch.where(self.first.isnan(), losses, self.first)
        left = losses / self.first.clamp_min(1e-12)
        share = torch.nan_to_num(left[1] / left.sum(), nan=0.5)  # both losses gone: nothing to balance
        self.clean_weight = self.clean_weight - self.balance_lr * self.lr_scale * (self.clean_weight - share)

    def state_dict(self) -> dict[str, Any]:
        return {"clean_weight": self.clean_weight, "first": self.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clean_weight, self.first = state["clean_weight"].to(self.device), state["first"].to(self.device)
