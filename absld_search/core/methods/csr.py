"""CSR, Confusional Spectral Regularization: Jin et al., ICLR 2025, arXiv:2501.13273."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.losses import CrossEntropy, cross_entropy
from absld_search.core.methods.adversarial import trades_terms
from absld_search.core.methods.base import Epoch, Method, Step, Teacher, Value, knob


@dataclass
class CSR(Method):
    """Press on the confusions that make up the largest singular value of the robust confusion matrix.

    Before each epoch PGD runs on the training images, the true class's logit lowered by a tenth as a margin; M
    holds how often class y is taken for another class. With u, v its top singular vectors, G = outer(u, v)
    rescaled to [0.01, 2.01].
    Formula: (1 - spectral_weight) * CE(S(x), y) + kl_weight * KL(S(x) || S(x'))
    + spectral_weight * mean of G[prediction on x', y] * CE(S(x'), y).

    Starts from a robust model and fine-tunes: here, TRADES has the first part of the epochs (`init_from`,
    `init_share`), where the paper takes two epochs at a rate of 0.001.
    Differs from the released code: M holds rates per class, equal to its counts where classes are balanced; "lowered
    by a tenth" is of the logit's size, so that a negative logit is lowered too; without confusions G is one.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + F; update 2F+B; PGD on all of train every epoch"

    kl_weight: float = knob(6.0, low=0, doc="beta in the paper")
    spectral_weight: float = knob(0.3, low=0, high=1, doc="share of the spectral term; the rest is clean CE")
    margin: float = knob(0.1, low=0, high=1, doc="part of the true logit that is taken away while measuring")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.gains = torch.ones(num_classes, num_classes, dtype=torch.float64, device=device)

    def training_defaults(self) -> dict[str, Value]:
        return {"init_from": "trades"}

    def measured_on(self) -> str:
        return "train"

    def measure(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = self.attack(student, batch, CrossEntropy(batch.y))
        logits = student(x_adv)
        own = logits.gather(1, batch.y[:, None])
        predicted = logits.scatter(1, batch.y[:, None], own - self.margin * own.abs()).argmax(1)
        return {f"predicted_{c}": (predicted == c).float() for c in range(self.num_classes)}

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        if class_means is None:
            return
        rates = torch.stack([class_means[f"predicted_{c}"] for c in range(self.num_classes)])  # [predicted, true]
        self.gains = spectral_gains(torch.nan_to_num(rates))

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = trades_terms(self, student, batch)
        predicted = terms.adv_logits.argmax(1)
        gain = self.gains.to(terms.natural)[predicted, batch.y]
        spectral = self.mean(gain * cross_entropy(terms.adv_logits, batch.y), batch.y)
        natural, robust = self.mean(terms.natural, batch.y), self.mean(terms.robust, batch.y)
        loss = (1 - self.spectral_weight) * natural + self.kl_weight * robust + self.spectral_weight * spectral
        return Step(loss, terms.signals)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        return {"confusion_gain": self.gains.mean(0)}

    def state_dict(self) -> dict[str, Any]:
        return {"gains": self.gains}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gains = state["gains"].to(self.device)


def spectral_gains(confusion: Tensor, low: float = 0.01, high: float = 2.01) -> Tensor:
    """Outer product of the top singular vectors of the off-diagonal confusion (C, C), rescaled to [low, high]."""
    errors = confusion.double() - torch.diag(confusion.double().diagonal())
    left, _, right = torch.linalg.svd(errors)
    outer = torch.outer(left[:, 0], right[0]).abs()  # of a matrix without negative entries: one sign throughout
    spread = outer.max() - outer.min()
    if not errors.any() or spread == 0:
        return torch.ones_like(outer)
    return low + (high - low) * (outer - outer.min()) / spread
