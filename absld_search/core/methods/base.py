"""What a method is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from absld_search.core import attacks
from absld_search.core.data import Batch
from absld_search.core.losses import Objective, signals  # noqa: F401  part of the contract
from absld_search.core.methods.asking import AskedTeacher, Teacher  # noqa: F401  part of the contract
from absld_search.core.methods.knobs import checked, in_range, knob, knobs  # noqa: F401  part of the contract

Radius = tuple[Tensor | float, Tensor | float]  # (eps, step size): numbers, or (B,) where samples differ
Value = float | int | str | bool


class Step(NamedTuple):
    """What a method makes of one batch."""

    loss: Tensor  # scalar, ready for backward()
    per_sample: dict[str, Tensor]  # (B,) each, detached; the trainer averages them per class over the epoch


class Epoch(NamedTuple):
    """Where the training stands when an epoch starts or ends; counted from where the method took over."""

    number: int  # 1 ... total
    total: int
    lr_scale: float  # learning rate now / at the start of the training

    def past(self, share: float) -> bool:
        """Whether this epoch lies after the first `share` of all: papers' epochs, for any budget."""
        return self.number > round(share * self.total)


@dataclass
class Method:
    """A paper. Fields are its hyperparameters with its values; state lives in `state_dict`."""

    teacher_roles: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = ""  # of a step, in forward (F) and backward (B) passes; T: the teacher's

    eps: float = knob(8 / 255, low=0, high=1, doc="L-infinity radius, pixel units of [0, 1]")
    step_size: float = knob(2 / 255, above=0, high=1, doc="attack step, pixel units")
    num_steps: int = knob(10, low=1, doc="attack steps in training")
    attack_start: str = knob("gaussian", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")
    attack_mode: str = knob("eval", options=("eval", "train"), doc="batch norm while attacking; train moves it")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        """Called once before the first epoch."""
        self.num_classes, self.device = num_classes, device

    def roles(self) -> tuple[str, ...]:
        """The teachers that `step` asks."""
        return self.teacher_roles

    def training_defaults(self) -> dict[str, Value]:
        """Words of the training (`trainer.Options`) that the paper settles: where it starts, what it averages."""
        return {}

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        """Called before an epoch, with the class means (C,) of what `measure` just found, if it measures."""

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        """The paper's "for each batch"."""
        raise NotImplementedError

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        """The paper's "for each epoch": {signal: (C,)}, nan for a class without a sample -> what is logged.

        "count" is always among the signals: how many samples of each class the epoch had.
        """
        return {}

    def measured_on(self) -> str:
        """What `measure` wants to see before every epoch: "monitor", "train" or "" for nothing."""
        return ""

    def measure(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Signals (B,) of a batch before an epoch, student in eval mode, nothing learned from it."""
        raise NotImplementedError

    def class_sampling(self) -> Tensor | None:
        """Probability of each class (C,) in the next batch; None: every image once an epoch."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What must be in a checkpoint beside the student: what `start_epoch` does not set anew."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a checkpoint's state back."""

    def mean(self, values: Tensor, y: Tensor) -> Tensor:
        """The one place where losses (B,) become a number. Methods that weigh classes do it here."""
        return values.mean()

    def radius(self, y: Tensor) -> Radius:
        """That of the attack on samples of the classes y (B,)."""
        return self.eps, self.step_size

    def counts_survival(self) -> bool:
        """Whether `attack` counts, in `self.survived` (B,), the iterates that the student still gets right."""
        return False

    def repeatable(self) -> bool:
        """Whether `step` does the same to every batch of an epoch, so that it can be recorded once and replayed."""
        return False

    def attacking(self, student: nn.Module) -> AbstractContextManager[None]:
        """The student as an attack wants it."""
        return nullcontext() if self.attack_mode == "train" else attacks.frozen_batch_norm(student)

    def attack(
        self, student: nn.Module, batch: Batch, objective: Objective, radius: Radius | None = None
    ) -> Tensor:  # fmt: skip
        """This method's training attack: batch -> x_adv (B, ...)."""
        eps, step_size = radius or self.radius(batch.y)
        noise = attacks.start_noise(batch.x, self.attack_start, eps)
        counts = self.counts_survival()
        self.survived = torch.zeros_like(batch.y, dtype=torch.float32)

        def gradient(x: Tensor) -> Tensor:
            found, logits = attacks.input_gradient(student, x, objective)
            if counts:
                self.survived += logits.argmax(1) == batch.y
            return found

        with self.attacking(student):
            return attacks.ascend(batch.x, gradient, eps, step_size, self.num_steps, noise)
