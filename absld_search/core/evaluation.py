"""Model and attack -> per-image outcomes. Never touches training's randomness, and refuses nan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from absld_search.core import attacks, metrics
from absld_search.core.data import Split
from absld_search.core.losses import cross_entropy, cw_loss

EVALUATION_SEED = 77_003  # shared by every evaluation of every study: outcomes are paired image by image
CHUNK = 500
STEPS = 20
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"pgd20": cross_entropy, "cw20": cw_loss}
SEARCH_ATTACKS = ("clean", "pgd20")  # what search looks at; more only on test
KINDS = {"clean": "clean", "pgd20": "robust", "cw20": "cw"}  # attack -> the word in a metric's name


class NonFiniteLogits(ArithmeticError):
    """A network whose logits are nan or infinite has no accuracy: argmax would call it class 0."""


@dataclass(frozen=True)
class Outcome:
    """What one attack did to one split: ids, labels and verdicts (N,), in the split's order."""

    attack: str
    ids: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    num_classes: int

    def summary(self) -> dict[str, float]:
        """Accuracy, worst class, worst tenth, CVaR and NSD under this attack's word."""
        return metrics.summary(KINDS[self.attack], self.correct, self.labels, self.num_classes)

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """(accuracy (C,), n (C,)); nan for a class without an image."""
        return metrics.class_accuracies(self.correct, self.labels, self.num_classes)


def evaluate(model: nn.Module, split: Split, names: Sequence[str], eps: float, step_size: float) -> list[Outcome]:
    """One outcome for each of the attacks `names`: "clean", "pgd20" or "cw20".

    PGD-20 and CW-20 ascend the cross-entropy and the Carlini-Wagner margin from a uniform start that is a
    function of the image alone; the last iterate counts. Raises: NonFiniteLogits.
    """
    with attacks.frozen_batch_norm(model):
        return [_outcome(model, split, name, eps, step_size) for name in names]


def _outcome(model: nn.Module, split: Split, name: str, eps: float, step_size: float) -> Outcome:
    verdicts = [_correct(model, split, rows, name, eps, step_size) for rows in torch.arange(len(split)).split(CHUNK)]
    correct = torch.cat(verdicts).cpu().numpy()
    return Outcome(name, split.ids.cpu().numpy(), split.labels.cpu().numpy(), correct, split.num_classes)


def _correct(model: nn.Module, split: Split, rows: Tensor, name: str, eps: float, step_size: float) -> Tensor:
    x, y, ids, _ = split.at(rows)
    if name != "clean":
        loss = LOSSES[name]
        noise = start_noise(ids, x, eps)
        x = attacks.pgd(x, lambda x_adv: loss(model(x_adv), y), eps, step_size, STEPS, noise)
    with torch.no_grad():
        logits = model(x)
    if not logits.isfinite().all():
        raise NonFiniteLogits(f"logits under {name}")
    return logits.argmax(1) == y


def start_noise(ids: Tensor, x: Tensor, eps: float) -> Tensor:
    """Uniform noise in the eps-ball, keyed by image id: (B,), (B, ...) -> (B, ...)."""
    noise = torch.empty(x.shape)
    for row, image in enumerate(ids.tolist()):
        generator = torch.Generator().manual_seed(EVALUATION_SEED * 1_000_003 + image)
        noise[row] = torch.rand(x.shape[1:], generator=generator)
    return ((2 * noise - 1) * eps).to(x.device)
