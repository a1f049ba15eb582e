"""What the tests of methods share: small data, small networks, a training of any method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import data, models, teachers
from absld_search.core.data import Batch, Split
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Epoch, Method, Step
from absld_search.core.trainer import Options, Schedule, Trainer, WarmUp
from absld_search.workloads import DIGITS

SCHEDULE = Schedule(2, 100, 0.5, 0.9, 2e-4, (0.5,), 0.1)
LATE = Epoch(9, 10, 0.1)  # every warm-up is over
ROLES = ("robust", "clean")


def small() -> Split:
    """200 digits."""
    train, _ = data.load("digits", DIGITS.split, "cpu")
    rows = slice(0, 200)
    return Split(train.images[rows], train.labels[rows], train.ids[rows], 10)


def network(num_classes: int = 10, seed: int = 0, width: int = 4) -> nn.Module:
    return models.build(f"cnn-{width}", num_classes, 1, seed)


def teacher(train: Split) -> teachers.Network:
    return teachers.Network(models.build("cnn-12", 10, 1, seed=5))


def trainer(
    name: str, seed: int = 0, schedule: Schedule = SCHEDULE, options: Options | None = None,
    first: WarmUp | None = None, **knobs: object,
) -> Trainer:  # fmt: skip
    """A training of `name` on a few digits, two epochs unless told otherwise."""
    train = small()
    method = METHODS[name](**{"eps": 0.1, "step_size": 0.05, "num_steps": 4, **knobs})
    asked = {role: teacher(train) for role in ROLES}
    student = models.build("cnn-8", 10, 1, seed)
    return Trainer(student, method, asked, train, schedule, seed, options, first)


def images(size: int, num_classes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Batch:
    """Noise with labels; from three classes on, the last class is absent."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, 1, 8, 8, generator=generator).to(dtype)
    y = torch.arange(size) % max(2, num_classes - 1)
    return Batch(x, y, torch.arange(size), torch.zeros_like(y))


def ready(name: str, num_classes: int = 10, epoch: Epoch = LATE, **knobs: Any) -> Method:
    """A method that stands in `epoch`, before its first step."""
    method = METHODS[name](**{"eps": 0.1, "step_size": 0.05, "num_steps": 4, **knobs})
    method.setup(num_classes, "cpu")
    method.start_epoch(epoch)
    return method


def stepped(
    method: Method, batch: Batch, num_classes: int = 10, seed: int = 3, student: nn.Module | None = None
) -> tuple[Step, nn.Module]:
    """One step at fixed noise: (what it gave, the student after `backward`)."""
    student = (student or network(num_classes, seed=1)).to(batch.x.dtype).train()
    asked = {role: teachers.Network(network(num_classes, seed=7 + k).to(batch.x.dtype)) for k, role in enumerate(ROLES)}
    torch.manual_seed(seed)
    found = method.step(student, asked, batch)
    found.loss.backward()
    return found, student


def gradients(student: nn.Module) -> list[Tensor]:
    return [p.grad for p in student.parameters() if p.grad is not None]


def weights(trained: Trainer) -> list[Tensor]:
    return list(trained.student.state_dict().values())


def same(first: Trainer, second: Trainer) -> bool:
    """Whether two students are equal to the bit."""
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def equal(first: Any, second: Any) -> bool:
    """Whether two states are equal to the bit, nan being equal to nan."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, Tensor):
        return torch.equal(first.nan_to_num(nan=-123.0), second.nan_to_num(nan=-123.0))
    return first == second
