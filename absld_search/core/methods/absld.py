"""ABSLD: Zhao et al., NeurIPS 2024, arXiv:2312.05508; its extension without a teacher, 2025, arXiv:2506.08611."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.losses import Window, kl_div, soft_labels
from absld_search.core.methods.absld_factors import COUPLINGS, ABSLDFactors  # noqa: F401  asked for by tests
from absld_search.core.methods.adversarial import standard_attack
from absld_search.core.methods.base import Epoch, Step, Teacher, signals
from absld_search.core.methods.distillation import attack_objective, matched_pull
from absld_search.core.methods.label_sources import SelfTeacher, smoothed_logits
from absld_search.core.methods.temperatures import by_hand, moved, permutation, risks, smoothed_risks


@dataclass
class ABSLD(ABSLDFactors):
    """RSLAD in which every class has its own teacher temperature: harder classes get sharper labels.

    Formula: RSLAD's loss with labels softmax(z / tau_adv[y]) and softmax(z / tau_clean[y]) of the teacher's
    logits z on clean x; x' ascends KL(adversarial label || S(x')). After each epoch, with R the class means of
    the student's cross-entropy on adversarial (clean) training images and gap = R - mean(R):
    tau <- clip(tau - temperature_lr * lr_scale * gap / max|gap|, temperature_min, temperature_max).

    Couplings: dual, two sets, each driven by its own risk: the paper; shared, one set for both labels, driven
    by the adversarial risk; product, both labels divided by tau_adv * tau_clean: what the released code
    computes; adv_only and clean_only, the other set stays where it starts; mixed, each risk is mixed with the
    other's, (1 - s/2) own + s/2 other with s = coupling_strength, so 0 is dual, bit for bit, and at 1 both sets
    follow the mean of both risks.
    Without a teacher: labels of an average of the student's own weights, mixed with the true label, or smoothed
    labels, both tempered by the same rule. class_weights and class_margin add other papers' rules.

    Differs from the released code: (1) two label sets, where the release divides one storage twice
    (`coupling=product`); (2) class means, where it sums, which reads a frequent class as a hard one
    (`risk_aggregation=sum`); (3) no move when all gaps are rounding, where it gives nan; (4) a class not seen
    in an epoch keeps its temperature; (5) log-softmax, where log(softmax) overflows; (6) the temperatures are
    in the checkpoint; (7) the rate decays with the learning rate once an epoch, where it decays once per
    parameter group. `released` sets (1) and (2). Like the release, the divergence is 1/C of the paper's
    (`kl_reduction`), and the drop of the rate already acts on the update that ends the dropping epoch.
    Not stated in what could be read: which labels the extension uses without a teacher, how much of the true
    label they hold, and whether the weights it adds act on both terms (here they do).
    """

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        start = torch.ones(num_classes, device=device)
        self.tau_adv, self.tau_clean = start * self.initial_temperature_adv, start * self.initial_temperature_clean
        if self.direction == "manual":
            self.tau_adv = self.tau_clean = by_hand(self.manual_temperatures, num_classes).to(device)
        self.order = permutation(num_classes, self.permutation_seed).to(device)
        self.smoothed = torch.full((2, num_classes), float("nan"), dtype=torch.float64, device=device)
        self.self_teacher = SelfTeacher(self.self_decay)
        self.lr_scale, self.window = 1.0, Window(num_classes, device)

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        super().start_epoch(epoch, class_means)
        self.lr_scale = epoch.lr_scale
        if class_means is not None and epoch.number > 1 and self.due(epoch.number - 1):
            self._update(class_means, epoch.lr_scale)

    def measure(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = standard_attack(self, student, batch, (self.eps, self.step_size))
        return signals(batch.y, adv=student(x_adv), clean=student(batch.x))

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        logits = self.label_logits(student, teachers, batch)
        targets, plain = self.targets(logits, batch.y), soft_labels(logits)
        target = "teacher" if self.norm_matched and self.attack_target == "tempered" else self.attack_target
        objective = attack_objective(target, student, teachers, batch, plain)
        divergence = matched_pull(plain) if self.norm_matched else kl_div
        loss, found = self.soft_label_step(student, batch, targets, self.adv_weight, objective, divergence)
        if self.counts_survival():
            found["survived"] = self.survived
        self._count(batch.y, found)
        return Step(loss, found)

    def label_logits(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Tensor:
        """(B, C): what temperatures divide."""
        if self.label_source == "teacher":
            return teachers["robust"].clean_logits(batch)
        if self.label_source == "label_smoothing":
            return smoothed_logits(batch.y, self.num_classes, self.label_smoothing, batch.x)
        self.self_teacher.follow(student)
        return self.self_teacher.logits(batch.x, batch.y, self.hard_share)

    def targets(self, teacher_logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The (adversarial, clean) soft labels: (B, C), (B,) -> two (B, C)."""
        adv, clean = self.tau_adv[y], self.tau_clean[y]
        if self.coupling == "shared":
            clean = adv
        elif self.coupling == "product":
            adv = clean = adv * clean
        return soft_labels(teacher_logits, adv), soft_labels(teacher_logits, clean)

    def _count(self, y: Tensor, found: dict[str, Tensor]) -> None:
        """Where temperatures move every few iterations: gather risks, and move when it is time."""
        if self.update_unit == "iteration":
            self.window.add(y, found)
            if self.window.iterations == self.update_every:
                self._update(self.window.emptied(), self.lr_scale)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        rules = super().end_epoch(class_means, epoch)
        if self.risk_signal != "monitor_ce" and self.due(epoch.number):  # the monitor speaks before an epoch
            self._update(class_means, epoch.lr_scale)
        logged = {"temperature_adv": self.tau_adv, "temperature_clean": self.tau_clean, **rules}
        return {k: v for k, v in logged.items() if self.coupling != "shared" or k != "temperature_clean"}

    def _update(self, class_means: Mapping[str, Tensor], lr_scale: float) -> None:
        adv, clean = found = risks(class_means, self.risk_signal, self.risk_aggregation)
        if self.risk_aggregation == "ema":
            adv, clean = self.smoothed = smoothed_risks(self.smoothed, torch.stack(found), self.risk_ema_decay)
        if self.coupling == "mixed" and self.coupling_strength:
            share = self.coupling_strength / 2
            adv, clean = (1 - share) * adv + share * clean, (1 - share) * clean + share * adv
        if self.coupling != "clean_only":
            self.tau_adv = self._moved(self.tau_adv, adv, lr_scale)
        if self.coupling not in ("adv_only", "shared"):
            self.tau_clean = self._moved(self.tau_clean, clean, lr_scale)

    def _moved(self, tau: Tensor, risk: Tensor, lr_scale: float) -> Tensor:
        """The temperatures (C,) after one update by the class risks (C,), in this method's direction."""
        if self.direction == "manual":
            return tau
        rate = self.temperature_lr * lr_scale * (-1 if self.direction == "smooth_hard" else 1)
        risk = risk[self.order] if self.direction == "permuted" else risk
        return moved(tau, risk, rate, (self.temperature_min, self.temperature_max), self.update_normaliser)

    def state_dict(self) -> dict[str, Any]:
        own = {"tau_adv": self.tau_adv, "tau_clean": self.tau_clean, "smoothed": self.smoothed}
        since = {"window": self.window.state_dict(), "self_teacher": self.self_teacher.state_dict()}
        return {**super().state_dict(), **own, **since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for name in ("tau_adv", "tau_clean", "smoothed"):
            setattr(self, name, state[name].to(self.device))
        self.window.load_state_dict(state.get("window", {}))  # checkpoints of before 2026-12 have none
        self.self_teacher.load_state_dict(state["self_teacher"])
