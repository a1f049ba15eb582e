"""One training from words to numbers. Needs neither Ray nor MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock

from absld_search.core import checkpoints, data, evaluation, models, records, results
from absld_search.core.config import TrialConfig, is_file
from absld_search.core.finite import require_metrics
from absld_search.core.methods.base import Method
from absld_search.core.teacher_making import load, teacher
from absld_search.core.trainer import EpochEnd, NonFinite, Trainer
from absld_search.workloads import (
    Workload,
    workload,
)

TEST_ATTACKS = ("clean", "pgd20", "cw20")
Report = Callable[[int, dict[str, float]], None]  # (epoch, metrics)


def run_trial(config: TrialConfig, folder: Path, report: Report, checkpoint_seconds: float = 4.0) -> dict[str, float]:
    """Train, evaluate, write the Parquet shard into `folder`; its metrics (fractions; `test/` for test).

    Called again after a kill it goes on from the newest whole checkpoint, at most one epoch or
    `checkpoint_seconds` back, whichever is longer; called again when complete it answers at once.
    Raises: NonFinite, and then no metric of this training is worth anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # a worker outlives a killed driver by seconds, and the next one is fast
        finished = results.read_result(folder)
        if finished is not None:
            return finished
        torch.set_num_threads(1)  # several trainings share the cores; more threads than cores costs 2x
        with torch.random.fork_rng():
            return _Run(config, folder, report, checkpoint_seconds).run()


class _Run:
    """What one call of `run_trial` holds on to."""

    def __init__(self, config: TrialConfig, folder: Path, report: Report, checkpoint_seconds: float) -> None:
        self.config, self.folder, self.report = config, folder, report
        self.setting = workload(config.workload)
        self.train, self.val = load(self.setting, config)
        self.trainer = _trainer(config, self.setting, self.train)
        self.saver = checkpoints.Saver(self.trainer, folder, config.schedule.epochs, checkpoint_seconds)
        self.log = records.EpochLog(folder / "epochs.jsonl")

    def run(self) -> dict[str, float]:
        checkpoints.go_on(self.trainer, self.folder)
        self.trainer.run(self.on_epoch)
        outcomes = self.evaluate("val", evaluation.SEARCH_ATTACKS)
        if self.config.test:
            outcomes |= self.evaluate("test", TEST_ATTACKS)
        metrics = records.metrics_of(outcomes)
        require_metrics(metrics, self.trainer.epoch)
        self.write(outcomes, metrics)
        return metrics

    def on_epoch(self, end: EpochEnd) -> None:
        last = end.number == self.config.schedule.epochs
        if end.number % self.setting.eval_every == 0 and not last:
            end.metrics |= records.metrics_with_classes(self.evaluate("val", evaluation.SEARCH_ATTACKS))
        require_metrics(end.metrics, end.number)
        self.log.append(end.number, end.metrics)
        self.saver.after(end)  # after the log: a kill in between repeats the epoch and logs it once more, equal
        self.report(end.number, end.metrics)

    def evaluate(self, name: str, attacks: Iterable[str]) -> dict[str, list[evaluation.Outcome]]:
        split = self.val if name == "val" else self._test()
        eps, step_size = float(self.config.hyperparameters["eps"]), self.setting.eval_step_size
        try:
            found = evaluation.evaluate(self.trainer.deployed, split, tuple(attacks), eps, step_size)
        except evaluation.NonFiniteLogits as error:
            raise NonFinite(f"{name} {error}".replace(" ", "-"), self.trainer.epoch) from None
        return {name: found}

    def _test(self) -> data.Split:
        return data.load_test(self.setting.dataset, self.setting.split, self.config.device, self.config.folders.data)

    def write(self, outcomes: records.Outcomes, metrics: dict[str, float]) -> None:
        key = self.config.key
        epochs = self.config.schedule.epochs
        self.log.append(epochs, {**self.log.last(), **records.metrics_with_classes(outcomes)})
        records.save_student(self.folder, self.trainer.deployed)
        rows = (
            records.epoch_rows(key, self.log),
            records.class_rows(key, outcomes),
            records.image_rows(key, outcomes),
        )
        results.write_shard(self.folder, *rows, result=metrics)
        checkpoints.remove(self.folder)


def _trainer(config: TrialConfig, setting: Workload, train: data.Split) -> Trainer:
    channels, size, _ = train.image_shape
    student = models.build(setting.student, train.num_classes, channels, config.seed, size=size)
    if is_file(config.options.init_from):
        student.load_state_dict(safetensors.torch.load_file(config.options.init_from), strict=True)
    method, names = config.build(), config.teacher_names
    roles = {role: teacher(setting, name, train, config.folders) for role, name in names.items()}
    rest, monitor = _monitored(method, config, setting, train)
    options = (config.options, config.warm_up(), monitor)
    return Trainer(student.to(config.device), method, roles, rest, config.schedule, config.seed, *options)


def _monitored(
    method: Method, config: TrialConfig, setting: Workload, train: data.Split
) -> tuple[data.Split, data.Split | None]:
    """(what to train on, what to measure on), for those that ask where the workload keeps something apart."""
    asks = method.measured_on() == "monitor" or config.options.averaging == "fawa"
    if not asks or not setting.monitor:
        return train, None
    where = (config.device, config.folders.data, config.augmentation)
    return data.load_monitor(setting.dataset, setting.split, setting.monitor, *where)
