"""Making teachers: trained by their recipe, measured on val, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from absld_search.core import checkpoints, data, evaluation, models, records, teachers
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.core.methods import METHODS
from absld_search.core.trainer import EpochEnd, Trainer
from absld_search.words import UsageError
from absld_search.workloads import (
    TeacherSpec,
    Workload,
)

FLOOR_IMAGES = 500  # on which a teacher's clean accuracy must reach its floor
SLOW_ON_CPU = 10_000_000  # parameters from which APGD on val takes hours without a GPU


def teacher(
    setting: Workload, name: str, train: data.Split, folders: Folders = teachers.NOWHERE, stream: int = 0
) -> teachers.Network:
    """The workload's teacher `name`, ready to be asked about `train` in the views of `stream`; made where missing."""
    file = ensure_teacher(setting, name, str(train.labels.device), lambda line: None, folders)
    return teachers.load(setting, name, file, train, folders, stream)


def ensure_teacher(
    setting: Workload,
    name: str,
    device: str,
    say: Callable[[str], None],
    folders: Folders = teachers.NOWHERE,
    passing: Callable[[str], None] = lambda line: None,
) -> teachers.TeacherFile:
    """The teacher's file; trained or measured first where that has not been done, which `say` is told.

    `passing`: told after each epoch, which takes up to minutes, how far it is.
    """
    return teachers.ensure(setting, name, _Maker(setting, name, device, folders, passing), say, folders)


@dataclass(frozen=True)
class _Maker:
    """How a teacher is trained, and measured on val."""

    setting: Workload
    name: str
    device: str
    folders: Folders
    passing: Callable[[str], None] = lambda line: None

    def train(self, spec: TeacherSpec, partial: Path) -> nn.Module:
        """A teacher by its recipe; `partial` is where a killed attempt left its checkpoints, and this one does."""
        words = {**spec.words, "method": spec.method, "epochs": spec.epochs, "learning_rate": spec.learning_rate}
        config = TrialConfig.from_words(words, self.setting.name, spec.seed, self.device, folders=self.folders)
        train, _ = load(self.setting, config)
        channels, size, _ = train.image_shape
        model = models.build(spec.model, train.num_classes, channels, spec.seed, size=size).to(self.device)
        method = METHODS[spec.method](**dict(config.hyperparameters))
        torch.set_num_threads(1)  # the sums of two threads round otherwise, and everybody should get this teacher
        trainer = Trainer(model, method, {}, train, config.schedule, spec.seed)
        checkpoints.go_on(trainer, partial)
        save, began, first = checkpoints.Saver(trainer, partial, spec.epochs).after, time.monotonic(), trainer.epoch

        def after(end: EpochEnd) -> None:
            save(end)
            left = (time.monotonic() - began) / (end.number - first) * (spec.epochs - end.number)
            self.passing(f"teacher {self.name}: epoch {end.number}/{spec.epochs}, about {left:.0f} s left")

        trainer.run(after)
        self.passing(f"teacher {self.name}: trained, measuring it on val")
        return model

    def measure(self, model: nn.Module, floor: float) -> dict[str, float]:
        """Its accuracies on val. Raises: UsageError where it is worse than `floor` on clean images."""
        model = model.to(self.device)
        _, val = data.load(self.setting.dataset, self.setting.split, self.device, self.folders.data)
        few = val.first(FLOOR_IMAGES)
        clean = self._evaluated(model, few, ("clean",))
        if clean["clean_accuracy"] < floor:
            raise UsageError(
                f"teacher {self.name} is right on {clean['clean_accuracy']:.1%} of {len(few)} clean images of val; "
                f"at least {floor:.0%} was expected, so these are not its weights or not its data."
            )
        slow = self.device == "cpu" and sum(p.numel() for p in model.parameters()) > SLOW_ON_CPU
        found = clean if slow else self._evaluated(model, val, evaluation.SEARCH_ATTACKS)
        return {**found, "images": len(few) if slow else len(val)}

    def _evaluated(self, model: nn.Module, split: data.Split, attacks: tuple[str, ...]) -> dict[str, float]:
        found = evaluation.evaluate(model, split, attacks, self.setting.eps, self.setting.eval_step_size)
        return records.metrics_of({"val": found})


def load(setting: Workload, config: TrialConfig) -> tuple[data.Split, data.Split]:
    """(train, val) of a configuration, train in its views."""
    where = config.folders.data
    return data.load(setting.dataset, setting.split, config.device, where, config.augmentation)
