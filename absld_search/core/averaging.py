"""Averages of a student's weights over epochs, and the gate that keeps unfair ones out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import attacks
from absld_search.core.data import Batch, Split
from absld_search.core.losses import ClassMeans, cross_entropy

CHUNK = 500


class WeightAverage:
    """Exponential average once an epoch: CFA's FAWA (Wei et al., CVPR 2023, arXiv:2303.14460) and, without its
    gate, plain EMA.

    Batch norm's running statistics are averaged with the weights; counters are copied.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.model: nn.Module | None = None  # none before the first epoch that enters
        self._pending: Mapping[str, Tensor] | None = None

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Let the student's weights enter."""
        if self.deployed(student) is student:
            self.model = copy.deepcopy(student)
            return
        assert self.model is not None
        for mine, new in zip(self.model.state_dict().values(), student.state_dict().values(), strict=True):
            mine.copy_(self.decay * mine + (1 - self.decay) * new if new.is_floating_point() else new)

    def deployed(self, student: nn.Module) -> nn.Module:
        """The average where there is one, else the student itself."""
        if self._pending is not None:
            self.model = copy.deepcopy(student)
            self.model.load_state_dict(self._pending)
            self._pending = None
        return student if self.model is None else self.model

    def state_dict(self) -> dict[str, Any]:
        if self._pending is not None:
            return {"model": dict(self._pending)}
        return {"model": None if self.model is None else self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model, self._pending = None, state["model"]


def worst_class_accuracy(student: nn.Module, split: Split, eps: float, step_size: float, num_steps: int) -> float:
    """Robust accuracy of the worst class that has images in `split`, under PGD on the cross-entropy."""
    means = ClassMeans(split.num_classes, split.labels.device)
    with attacks.frozen_batch_norm(student):
        for rows in torch.arange(len(split), device=split.labels.device).split(CHUNK):
            means.add(split.labels[rows], {"correct": _correct(student, split.at(rows), eps, step_size, num_steps)})
    accuracy = means.means()["correct"]
    return float(accuracy[means.count > 0].min())


def _correct(student: nn.Module, batch: Batch, eps: float, step_size: float, num_steps: int) -> Tensor:
    noise = attacks.start_noise(batch.x, "uniform", eps)
    x_adv = attacks.pgd(batch.x, lambda x: cross_entropy(student(x), batch.y), eps, step_size, num_steps, noise)
    with torch.no_grad():
        return (student(x_adv).argmax(1) == batch.y).float()
