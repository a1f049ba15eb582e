"""Which short training ranks configurations as the whole one does? Asked by training all of them, every way.

python -m benchmarks.fidelity                                   # digits, 27 configurations, 3 seeds
python -m benchmarks.fidelity --workload cifar10-micro --configs 8 --seeds 1 --data-dir DATA
python -m benchmarks.fidelity --report                          # tables and picture from what is there

Each training is stored once in OUT/<workload>/trainings; the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from absld_search.core import records, teacher_making, trial
from absld_search.core.config import TrialConfig
from absld_search.core.evaluation import SEARCH_ATTACKS
from absld_search.core.files import Folders, write_atomic
from absld_search.core.rungs import rungs
from absld_search.core.trainer import EpochEnd, NonFinite
from absld_search.words import UsageError
from absld_search.workloads import Workload, workload

PLAIN = ({"method": "rslad"}, {"method": "trades"}, {"method": "sat"})
GRACE = {"digits": 3}  # epochs of the lowest rung; 1 elsewhere


@dataclass(frozen=True)
class Study:
    """What is asked, and where its answers lie."""

    setting: Workload
    configs: int
    seeds: tuple[int, ...]
    folder: Path
    folders: Folders

    @property
    def budgets(self) -> tuple[int, ...]:
        return rungs(self.setting.epochs, 3, GRACE.get(self.setting.name, 1))

    def config(self, words: dict[str, Any], seed: int, test: bool = False) -> TrialConfig:
        return TrialConfig.from_words(words, self.setting.name, seed, test=test, folders=self.folders)

    def file(self, config: TrialConfig) -> Path:
        return self.folder / "trainings" / f"{config.key}.json"


def configurations(setting: Workload, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` configurations: RSLAD, TRADES and SAT as they are, and draws from what ABSLD's searches tune."""
    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    drawn = [
        {
            "coupling": str(rng.choice(["dual", "shared", "product"])),
            "temperature_lr": log_uniform(1e-2, 1),
            "initial_temperature_adv": log_uniform(0.5, 2),
            "initial_temperature_clean": log_uniform(0.5, 2),
            "learning_rate": setting.learning_rate * log_uniform(1 / 4, 4),
        }
        for _ in range(count - len(PLAIN))
    ]
    return [*PLAIN, *drawn]


@dataclass(frozen=True)
class Task:
    """A training that a way needs: of a configuration (its number) at a budget and seed."""

    way: str
    number: int
    budget: int
    words: dict[str, Any]
    seed: int


def tasks(study: Study) -> Iterator[Task]:
    """All of them, seed by seed, so that what is there early is whole."""
    every = list(enumerate(configurations(study.setting, study.configs)))
    for seed in study.seeds:
        for number, words in every:
            yield Task("full", number, study.setting.epochs, words, seed)
            for budget in study.budgets[:-1]:
                yield Task("compressed", number, budget, {**words, "epochs": budget}, seed)
                yield Task("clock", number, budget, _own_clock(words, budget, study.setting.epochs), seed)


def _own_clock(words: dict[str, Any], budget: int, epochs: int) -> dict[str, Any]:
    """Compressed, and temperatures move as much faster as there are fewer epochs to move in."""
    faster = {"temperature_lr": words["temperature_lr"] * epochs / budget} if "temperature_lr" in words else {}
    return {**words, **faster, "epochs": budget}


def stored(study: Study, task: Task) -> dict[str, Any] | None:
    """What its training found, if it is there."""
    path = study.file(study.config(task.words, task.seed))
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def train(study: Study, task: Task) -> None:
    """Train and store. A training that ends in nan is stored as failed: it ranks last."""
    config = study.config(task.words, task.seed, test=task.way == "full")
    began = time.process_time()
    try:
        with torch.random.fork_rng():
            found: dict[str, Any] = _looked_at(study, config)
    except NonFinite as error:
        found = {"val": {}, "test": {}, "failed": str(error)}
    found |= {"words": task.words, "seed": task.seed, "cpu_seconds": time.process_time() - began}
    write_atomic(study.file(config), json.dumps(found, indent=1).encode())


def _looked_at(study: Study, config: TrialConfig) -> dict[str, Any]:
    """{"val": {epoch: metrics}, "test": metrics}: val wherever a rung would look, test at the end."""
    run = trial.Run(config, study.folder / "scratch", lambda *_: None, checkpoint_seconds=float("inf"))
    looks = {*study.budgets, config.schedule.epochs}
    val: dict[int, dict[str, float]] = {}

    def on_epoch(end: EpochEnd) -> None:
        if end.number in looks:
            val[end.number] = records.metrics_of(run.evaluate("val", SEARCH_ATTACKS))

    run.trainer.run(on_epoch)
    test = records.metrics_of(run.evaluate("test", SEARCH_ATTACKS)) if config.test else {}
    return {"val": val, "test": {name.removeprefix("test/"): value for name, value in test.items()}}


def run(study: Study) -> None:
    """Train whatever is missing."""
    torch.set_num_threads(1)
    missing = [task for task in tasks(study) if stored(study, task) is None]
    for name in sorted({t for task in missing for t in study.config(task.words, 0).teacher_names.values()}):
        teacher_making.ensure_teacher(study.setting, name, "cpu", click.echo, study.folders)
    for done, task in enumerate(missing):
        if stored(study, task) is None:  # two ways can share a training
            click.echo(f"{done + 1}/{len(missing)}  {task.way} {task.number} at {task.budget}, seed {task.seed}")
            train(study, task)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--workload", "name", default="digits", show_default=True)
@click.option("--configs", type=click.IntRange(min=4), default=27, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="ABSLD_DATA_DIR", default=Path("data"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/fidelity"), show_default=True)
def main(name: str, configs: int, seeds: int, data_dir: Path, out: Path) -> None:
    """Train every configuration every way, and say how well the short trainings rank."""
    try:
        setting = workload(name)
        study = Study(setting, configs, tuple(range(seeds)), out / name, Folders(str(data_dir.absolute()), ""))
        run(study)
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
