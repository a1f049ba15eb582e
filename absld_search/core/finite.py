"""Numbers that are not finite end a training: where they first appeared is found without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from absld_search.core.data import Batch
from absld_search.core.losses import ClassMeans
from absld_search.core.methods.base import Step, Teacher

PLACES = ("teacher-logits", "student-logits", "loss")  # within a step, what comes first makes the rest follow
NEVER = 2**62


class NonFinite(ArithmeticError):
    """A number that ends the training: its text is `nonfinite:<where>@<epoch>`."""

    def __init__(self, where: str, epoch: int) -> None:
        super().__init__(f"nonfinite:{where}@{epoch}")
        self.where, self.epoch = where, epoch


class Watch:
    """The first step of an epoch in which each of `PLACES` was not finite: counters on the device, read once.

    One nan makes all later weights, logits and losses nan, so the place alone would not say where it came from.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = device
        self.begin()

    def begin(self) -> None:
        """An epoch starts."""
        self.step = torch.zeros((), dtype=torch.int64, device=self.device)
        self.first = {place: torch.full((), NEVER, device=self.device) for place in PLACES}

    def look(self, place: str, fine: Tensor) -> None:
        """Note the truth value `fine` () of this step."""
        first = self.first[place]  # written in place: a step may be replayed as a graph
        first.copy_(torch.where(fine, first, torch.minimum(first, self.step)))

    def end_step(self, found: Step) -> None:
        """What a step gave: a student's logits are finite exactly where its cross-entropies are."""
        for name, values in found.per_sample.items():
            if name.endswith("_risk"):
                self.look("student-logits", values.isfinite().all())
        self.look("loss", found.loss.detach().isfinite())
        self.step += 1

    def found(self) -> str | None:
        """The first place, None where all was finite. Waits for the device."""
        step, place = min(zip(torch.stack(list(self.first.values())).tolist(), PLACES, strict=True), key=_by_step)
        return place if step < NEVER else None


def _by_step(item: tuple[int, str]) -> tuple[int, int]:
    return item[0], PLACES.index(item[1])


class WatchedTeacher:
    """A teacher whose logits are looked at."""

    def __init__(self, teacher: Teacher, watch: Watch) -> None:
        self.teacher, self.watch = teacher, watch

    def clean_logits(self, batch: Batch) -> Tensor:
        logits = self.teacher.clean_logits(batch)
        self.watch.look("teacher-logits", logits.isfinite().all())
        return logits

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.teacher(x)
        # An adversarial image that is nan already is the student's doing.
        self.watch.look("teacher-logits", logits.detach().isfinite().all() | ~x.detach().sum().isfinite())
        return logits


def require_epoch(watch: Watch, means: ClassMeans, epoch: int) -> None:
    """What an epoch's steps gave is finite. Raises: NonFinite."""
    where = watch.found()
    if where is not None:
        raise NonFinite(where, epoch)
    require_classes(means.means(), means.count, epoch)


def require_classes(values: Mapping[str, Tensor], count: Tensor, epoch: int, prefix: str = "") -> None:
    """Every {name: (C,)} is finite for the classes that were seen, which `count` (C,) says. Raises: NonFinite."""
    seen = count > 0
    for name, by_class in values.items():
        if not by_class[seen].isfinite().all():
            raise NonFinite(prefix + name, epoch)


def require_metrics(metrics: Mapping[str, float], epoch: int) -> None:
    """Every metric is a number. Raises: NonFinite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFinite(f"metric-{name}", epoch)
