"""ABSLD, Anti-Bias Soft Label Distillation: Zhao et al., NeurIPS 2024, arXiv:2312.05508."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.losses import soft_labels
from absld_search.core.methods.base import Epoch, Step, Teacher, knob
from absld_search.core.methods.distillation import Distillation
from absld_search.words import UsageError

COUPLINGS = ("dual", "shared", "product", "adv_only", "clean_only", "mixed")
ROUNDING = 1e-6  # gaps below this share of the mean risk are rounding, not unfairness


@dataclass
class ABSLD(Distillation):
    """RSLAD in which every class has its own teacher temperature: harder classes get sharper labels.

    Targets softmax(z / tau_adv[y]) and softmax(z / tau_clean[y]) of the teacher's logits z on clean x. After
    each epoch, with R the class means of the student's cross-entropy on adversarial (clean) training images,
    gap = R - mean(R):  tau <- clip(tau - temperature_lr * lr_scale * gap / max|gap|, min, max).

    Couplings:
      dual        two sets, each driven by its own risk: the paper
      shared      one set for both targets, driven by the adversarial risk
      product     both targets divided by tau_adv * tau_clean: what the released code computes
      adv_only    tau_clean stays where it starts
      clean_only  tau_adv stays where it starts
      mixed       two sets; each risk is mixed with the other's, `coupling_strength` s: (1 - s/2) own + s/2
                  other, so 0 is dual, bit for bit, and at 1 both sets follow the mean of both risks

    Differs from the released code: (1) two label sets, where the release divides one storage twice
    ("product" is that); (2) class means, where it sums, which reads a frequent class as a hard one; (3) no
    move when all gaps are rounding, where it gives nan; (4) a class not seen in an epoch keeps its
    temperature; (5) log-softmax, where log(softmax) overflows; (6) the temperatures are in the checkpoint;
    (7) the rate decays with the learning rate once an epoch, where it decays once per parameter group. Like
    the release, the drop of the rate already acts on the update that ends the dropping epoch.
    """

    coupling: str = knob("dual", options=COUPLINGS, doc="how the two sets of temperatures depend on each other")
    coupling_strength: float = knob(0.0, low=0, high=1, doc="of `mixed`: 0 is dual")
    temperature_lr: float = knob(0.1, low=0, doc="most that a temperature moves in an epoch")
    temperature_min: float = knob(0.5, above=0)
    temperature_max: float = knob(5.0, above=0)
    initial_temperature_adv: float = knob(1.0, above=0)
    initial_temperature_clean: float = knob(1.0, above=0)
    adv_weight: float = knob(5 / 6, low=0, high=1, doc="share of the adversarial term; the rest is clean")

    def __post_init__(self) -> None:
        for name in ("initial_temperature_adv", "initial_temperature_clean"):
            if not self.temperature_min <= getattr(self, name) <= self.temperature_max:
                bounds = f"[{self.temperature_min:g}, {self.temperature_max:g}]"
                raise UsageError(f"{name} is {getattr(self, name):g}, outside its bounds {bounds}.")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.tau_adv = torch.full((num_classes,), float(self.initial_temperature_adv), device=device)
        self.tau_clean = torch.full((num_classes,), float(self.initial_temperature_clean), device=device)

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        targets = self.targets(teachers["robust"].clean_logits(batch), batch.y)
        return self.soft_label_step(student, batch, targets, self.adv_weight)

    def targets(self, teacher_logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The (adversarial, clean) soft labels: (B, C), (B,) -> two (B, C)."""
        adv, clean = self.tau_adv[y], self.tau_clean[y]
        if self.coupling == "shared":
            clean = adv
        elif self.coupling == "product":
            adv = clean = adv * clean
        return soft_labels(teacher_logits, adv), soft_labels(teacher_logits, clean)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        adv, clean = class_means["adv_risk"], class_means["clean_risk"]
        share = self.coupling_strength / 2 if self.coupling == "mixed" else 0.0
        rate = self.temperature_lr * epoch.lr_scale
        if self.coupling != "clean_only":
            self.tau_adv = self._moved(self.tau_adv, (1 - share) * adv + share * clean, rate)
        if self.coupling not in ("adv_only", "shared"):
            self.tau_clean = self._moved(self.tau_clean, (1 - share) * clean + share * adv, rate)
        logged = {"temperature_adv": self.tau_adv, "temperature_clean": self.tau_clean}
        return {"temperature_adv": self.tau_adv} if self.coupling == "shared" else logged

    def _moved(self, tau: Tensor, risk: Tensor, rate: float) -> Tensor:
        """The temperatures (C,) after one update by the class risks (C,), nan where a class was not seen."""
        seen = risk.isfinite()
        gap = torch.where(seen, risk - risk[seen].mean(), torch.zeros_like(risk))
        largest = gap.abs().max()
        if not seen.any() or largest <= ROUNDING * risk[seen].mean().abs():
            return tau
        moved = (tau.double() - rate * gap / largest).clamp(self.temperature_min, self.temperature_max)
        return torch.where(seen, moved.to(tau.dtype), tau)

    def state_dict(self) -> dict[str, Tensor]:
        return {"tau_adv": self.tau_adv, "tau_clean": self.tau_clean}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.tau_adv, self.tau_clean = state["tau_adv"].to(self.device), state["tau_clean"].to(self.device)
