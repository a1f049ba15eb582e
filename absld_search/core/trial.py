"""One training from words to numbers. Needs neither Ray nor MLflow."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock
from torch import nn

from absld_search.core import checkpoints, data, distributed, evaluation, faults, models, provenance, records, results
from absld_search.core.config import TrialConfig, is_file
from absld_search.core.finite import require_metrics
from absld_search.core.methods.base import Method
from absld_search.core.selection import Selection
from absld_search.core.teacher_making import load, teacher
from absld_search.core.trainer import EpochEnd, NonFinite, Trainer
from absld_search.workloads import (
    Workload,
    workload,
)

TRAINING = "training.json"  # what was trained, and where: enough to train it again
TEACHER_COUNTS = "teacher_counts.json"  # {role: how many images its network looked at, and how many were looked up}
Report = Callable[[int, dict[str, float]], None]  # (epoch, metrics)
Say = Callable[[str], None]
log = logging.getLogger(__name__)


def run_trial(
    config: TrialConfig,
    folder: Path,
    report: Report,
    checkpoint_seconds: float = 4.0,
    say: Say = log.warning,
    group: distributed.Group | None = None,
) -> dict[str, float]:
    """Train, evaluate, write the Parquet shard into `folder`; its metrics (fractions; `test/` for test).

    Called again after a kill it goes on from the newest whole checkpoint, at most one epoch or
    `checkpoint_seconds` back, whichever is longer; called again when complete it answers at once. `say` hears of
    checkpoints that are damaged. With a `group` this is the process of rank 0, and the others `follow`.
    Raises: NonFinite, and then no metric of this training is worth anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # a worker outlives a killed driver by seconds, and the next one is fast
        finished = results.read_result(folder)
        if finished is not None:
            checkpoints.remove(folder)  # a kill right after the result left them
            return finished
        with _undisturbed(config, group):
            return Run(config, folder, report, checkpoint_seconds, shared=group is not None).run(say)


def follow(config: TrialConfig, group: distributed.Group) -> None:
    """What the other processes of a training do: train their slices, and write nothing."""
    setting = workload(config.workload)
    with _undisturbed(config, group):
        trained = _trainer(config, setting, load(setting, config)[0], shared=True)
        assert isinstance(trained, distributed.SharedTrainer)
        trained.agree()
        trained.run(lambda end: None)


@contextmanager
def _undisturbed(config: TrialConfig, group: distributed.Group | None) -> Iterator[None]:
    torch.set_num_threads(1)  # several trainings share the cores; more threads than cores costs 2x
    with torch.random.fork_rng(), provenance.repeatable(config.deterministic, config.device):
        if group is None:
            yield
            return
        with distributed.joined(group, config.device):
            yield


class Run:
    """What one call of `run_trial` holds on to."""

    def __init__(
        self, config: TrialConfig, folder: Path, report: Report, checkpoint_seconds: float, shared: bool = False
    ) -> None:
        self.config, self.folder, self.report = config, folder, report
        self.setting = workload(config.workload)
        self.train, self.val = load(self.setting, config)
        self.trainer = _trainer(config, self.setting, self.train, shared)
        self.selection = Selection(config.options.selection)
        self.saver = checkpoints.Saver(self, folder, config.schedule.epochs, checkpoint_seconds)
        self.log = records.EpochLog(folder / "epochs.jsonl")

    def run(self, say: Say = log.warning) -> dict[str, float]:
        checkpoints.go_on(self, self.folder, say=say)
        if isinstance(self.trainer, distributed.SharedTrainer):
            self.trainer.agree()
        self.trainer.run(self.on_epoch)
        last = self.look(self.config.schedule.epochs)
        outcomes = last if self.selected is self.trainer.deployed else self.evaluate("val", self.selected)
        if self.config.test:
            attacks = evaluation.of_test(self.setting.dataset, self.config.device)
            outcomes |= self.evaluate("test", self.selected, attacks)
        metrics = records.metrics_of(outcomes)
        require_metrics(metrics, self.trainer.epoch)
        self.write(outcomes, metrics, {**outcomes, **last})
        return metrics

    def on_epoch(self, end: EpochEnd) -> None:
        faults.at("worker.epoch")
        last = end.number == self.config.schedule.epochs
        if end.number % self.setting.eval_every == 0 and not last:
            end.metrics |= records.metrics_with_classes(self.look(end.number))
        require_metrics(end.metrics, end.number)
        self.log.append(end.number, end.metrics)
        self.saver.after(end)  # after the log: a kill in between repeats the epoch and logs it once more, equal
        self.report(end.number, end.metrics)

    def look(self, epoch: int) -> dict[str, list[evaluation.Outcome]]:
        """What `epoch` is worth on val; the selection rule hears of it."""
        found = self.evaluate("val", self.trainer.deployed)
        if self.selection.split:
            seen = found if self.selection.split == "val" else self.evaluate("test", self.trainer.deployed)
            scores = records.metrics_of({"val": seen[self.selection.split]})
            self.selection.consider(epoch, scores, self.trainer.deployed)
        return found

    @functools.cached_property
    def selected(self) -> nn.Module:
        """The network that counts; ask when the training has ended."""
        deployed = self.trainer.deployed
        taken = self.selection.epoch in (0, self.config.schedule.epochs)
        return deployed if taken else self.selection.selected(deployed)

    def evaluate(
        self, name: str, model: nn.Module, attacks: Iterable[str] = evaluation.SEARCH_ATTACKS
    ) -> dict[str, list[evaluation.Outcome]]:
        split = self.val if name == "val" else self._test()
        eps, step_size = float(self.config.hyperparameters["eps"]), self.setting.eval_step_size
        try:
            found = evaluation.evaluate(model, split, tuple(attacks), eps, step_size)
        except evaluation.NonFiniteLogits as error:
            raise NonFinite(f"{name} {error}".replace(" ", "-"), self.trainer.epoch) from None
        return {name: found}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**self.trainer.state_dict(), "selection": self.selection.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.trainer.load_state_dict(state)
        self.selection.load_state_dict(state.get("selection", {}))

    def described(self) -> dict[str, Any]:
        """What `training.json` holds: the resolved configuration and where it was computed."""
        return {**self.config.described(), "environment": provenance.environment(self.config.device)}

    def _test(self) -> data.Split:
        return data.load_test(self.setting.dataset, self.setting.split, self.config.device, self.config.folders.data)

    def write(self, outcomes: records.Outcomes, metrics: dict[str, float], logged: records.Outcomes) -> None:
        key = self.config.key
        epochs = self.config.schedule.epochs
        chosen = {"selected_epoch": float(self.selection.epoch)} if self.selection.split else {}
        self.log.append(epochs, {**self.log.last(), **records.metrics_with_classes(logged), **chosen})
        records.save_student(self.folder, self.selected)
        counts = {role: asdict(asked.count) for role, asked in self.trainer.asked.items()}
        results.write_json(self.folder / TEACHER_COUNTS, counts)
        results.write_json(self.folder / TRAINING, self.described())
        rows = (
            records.epoch_rows(key, self.log),
            records.class_rows(key, outcomes),
            records.image_rows(key, outcomes),
        )
        results.write_shard(self.folder, *rows, result=metrics)
        checkpoints.remove(self.folder)


def _trainer(config: TrialConfig, setting: Workload, train: data.Split, shared: bool = False) -> Trainer:
    channels, size, _ = train.image_shape
    student = models.build(setting.student, train.num_classes, channels, config.seed, size=size)
    if is_file(config.options.init_from):
        student.load_state_dict(safetensors.torch.load_file(config.options.init_from), strict=True)
    method, names = config.build(), config.teacher_names
    roles = {role: teacher(setting, name, train, config.folders, config.seed) for role, name in names.items()}
    rest, monitor = _monitored(method, config, setting, train)
    options = (config.options, config.warm_up(), monitor)
    kind = distributed.SharedTrainer if shared else Trainer
    return kind(student.to(config.device), method, roles, rest, config.schedule, config.seed, *options)


def _monitored(
    method: Method, config: TrialConfig, setting: Workload, train: data.Split
) -> tuple[data.Split, data.Split | None]:
    """(what to train on, what to measure on), for those that ask where the workload keeps something apart."""
    asks = method.measured_on() == "monitor" or config.options.averaging == "fawa"
    if not asks or not setting.monitor:
        return train, None
    where = (config.device, config.folders.data, config.augmentation)
    return data.load_monitor(setting.dataset, setting.split, setting.monitor, *where)
