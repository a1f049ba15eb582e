"""What our step is held against: ABSLD's training step (arXiv:2312.05508) as plainly as its release computes it.

Own code, the release's arithmetic: the teacher runs on every batch, labels and class sums go through Python loops over
samples, the attack differentiates the network as it stands, and the loss is a mean over batch and classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ADV_WEIGHT = 5 / 6


class PlainABSLD:
    """Student, teacher, temperatures, optimizer, and one step after the other."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, num_classes: int, eps: float = 8 / 255,
        step_size: float = 2 / 255, num_steps: int = 10, learning_rate: float = 0.1, momentum: float = 0.9,
        weight_decay: float = 2e-4,
    ) -> None:  # fmt: skip
        self.student, self.teacher = student, teacher.eval()
        self.eps, self.step_size, self.num_steps = eps, step_size, num_steps
        device = next(student.parameters()).device
        self.tau_adv, self.tau_clean = (torch.ones(num_classes, device=device) for _ in range(2))
        self.adv_risk, self.clean_risk = [0.0] * num_classes, [0.0] * num_classes
        self.optimizer = torch.optim.SGD(
            student.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        )

    def step(self, x: Tensor, y: Tensor) -> float:
        """One batch: images (B, ch, H, W) in [0, 1] and labels (B,) -> the loss, after the weights have moved."""
        loss = self.loss(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss, ready for backward(); the class sums have taken the batch in."""
        labels = self.labels(x, y)
        x_adv = self.attack(x, labels)
        self.student.train()
        adv_logits, clean_logits = self.student(x_adv), self.student(x)
        self.count(adv_logits, clean_logits, y)
        adv, clean = elementwise_kl(labels, adv_logits).mean(), elementwise_kl(labels, clean_logits).mean()
        return ADV_WEIGHT * adv + (1 - ADV_WEIGHT) * clean

    def labels(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, C): both temperatures divide one storage, as in the release, so one tensor serves both terms."""
        with torch.no_grad():
            logits = self.teacher(x)
        for row in range(len(y)):
            logits[row] /= self.tau_adv[int(y[row].item())]
        for row in range(len(y)):
            logits[row] /= self.tau_clean[int(y[row].item())]
        return F.softmax(logits, dim=1)

    def attack(self, x: Tensor, labels: Tensor) -> Tensor:
        """x_adv that ascends KL(labels || student) with batch norm in eval mode."""
        self.student.eval()
        x_adv = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
        for _ in range(self.num_steps):
            x_adv.requires_grad_(True)
            loss = elementwise_kl(labels, self.student(x_adv)).sum()
            gradient = torch.autograd.grad(loss, x_adv)[0]
            x_adv = x_adv.detach() + self.step_size * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - self.eps), x + self.eps).clamp(0, 1)
        return x_adv

    def count(self, adv_logits: Tensor, clean_logits: Tensor, y: Tensor) -> None:
        """Sums of the cross-entropy per class, sample by sample."""
        with torch.no_grad():
            adv = F.cross_entropy(adv_logits, y, reduction="none")
            clean = F.cross_entropy(clean_logits, y, reduction="none")
        for row in range(len(y)):
            self.adv_risk[int(y[row].item())] += adv[row].item()
            self.clean_risk[int(y[row].item())] += clean[row].item()


def elementwise_kl(labels: Tensor, logits: Tensor) -> Tensor:
    """The terms of KL(labels || softmax(logits)), (B, C), not summed."""
    return F.kl_div(F.log_softmax(logits, dim=1), labels, reduction="none")
