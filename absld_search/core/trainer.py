"""The epoch loop: the same for every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core.data import Split
from absld_search.core.losses import ClassMeans
from absld_search.core.methods.base import Epoch, Method, Teacher


class NonFinite(ArithmeticError):
    """A number that ends the training: its text is `nonfinite:<where>@<epoch>`."""

    def __init__(self, where: str, epoch: int) -> None:
        super().__init__(f"nonfinite:{where}@{epoch}")


@dataclass(frozen=True)
class Schedule:
    """Optimizer and schedule, equal for all compared methods: SGD, step-wise decay."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[float, ...]  # fractions of `epochs`
    lr_factor: float

    def drops(self) -> list[int]:
        """After which epochs the rate is multiplied by `lr_factor`."""
        return [max(1, round(at * self.epochs)) for at in self.milestones]


@dataclass
class EpochEnd:
    """What there is to report when an epoch has ended."""

    number: int
    metrics: dict[str, float] = field(default_factory=dict)


class Trainer:
    """One training that can stop after any epoch and go on from `state_dict`, bit for bit the same.

    All of the randomness of an epoch is a function of (seed, epoch): nothing random needs to be saved.
    """

    def __init__(
        self,
        student: nn.Module,
        method: Method,
        teachers: Mapping[str, Teacher],
        train: Split,
        schedule: Schedule,
        seed: int,
    ) -> None:
        self.student, self.method, self.teachers = student, method, teachers
        self.train, self.schedule, self.seed = train, schedule, seed
        self.epoch = 0
        self.optimizer = torch.optim.SGD(
            student.parameters(),
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, schedule.drops(), schedule.lr_factor)
        method.setup(train.num_classes, train.labels.device)

    def run(self, on_epoch: Callable[[EpochEnd], None]) -> None:
        """Train what is left. Raises: NonFinite."""
        while self.epoch < self.schedule.epochs:
            on_epoch(self.run_epoch())

    def run_epoch(self) -> EpochEnd:
        """Train one epoch and let the method draw its conclusions."""
        number = self.epoch + 1
        torch.manual_seed(self.seed * 2_000_003 + number)
        rate = self.optimizer.param_groups[0]["lr"]
        means = self._batches(number)
        self.scheduler.step()
        logged = self.method.end_epoch(means.means(), self._epoch(number))
        self.epoch = number
        return EpochEnd(number, self._metrics(means, logged, rate))

    def _batches(self, number: int) -> ClassMeans:
        self.student.train()
        means = ClassMeans(self.train.num_classes, self.train.labels.device)
        for batch in self.train.batches(self.schedule.batch_size, self.seed, number):
            loss, per_sample = self.method.step(self.student, self.teachers, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            means.add(batch.y, {**per_sample, "loss": loss.detach().expand(len(batch.y))})
        if not math.isfinite(means.overall()["loss"]):
            raise NonFinite("loss", number)
        return means

    def _epoch(self, number: int) -> Epoch:
        now = self.optimizer.param_groups[0]["lr"]
        return Epoch(number, self.schedule.epochs, now / self.schedule.learning_rate)

    def _metrics(self, means: ClassMeans, logged: Mapping[str, Tensor], rate: float) -> dict[str, float]:
        found = {"learning_rate": rate, "train/loss": means.overall()["loss"]}
        named = {"adv_correct": "train/robust_accuracy", "clean_correct": "train/clean_accuracy"}
        for signal, name in named.items():
            if signal in means.sums:
                found[name] = means.overall()[signal]
                found |= by_class(name, means.means()[signal])
        for name, values in logged.items():
            found |= by_class(name, values)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "epoch": self.epoch,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.epoch = int(state["epoch"])
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.method.load_state_dict(state["method"])


def by_class(name: str, values: Tensor) -> dict[str, float]:
    """{name/class_00: ...} of a (C,) tensor; a class without a value is left out."""
    numbers = values.tolist()
    return {f"{name}/class_{c:02d}": v for c, v in enumerate(numbers) if math.isfinite(v)}
