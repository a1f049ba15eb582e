"""Which short training ranks configurations as the whole one does? Asked by training all of them, every way.

python -m benchmarks.fidelity [--short]                         # digits, 27 configurations, 3 seeds
python -m benchmarks.fidelity --workload cifar10-micro --configs 8 --seeds 1 --data-dir DATA
python -m benchmarks.fidelity --report-only                     # table and picture from what is there

Ways of a rung of e epochs: `truncated`, the whole training looked at after e epochs; `compressed`, a training of e
epochs; `clock`, the same with temperatures that move epochs / e times as fast; `trunk`, a branch that decays from the
whole training's stable rate. Every result is a line of LINES/<workload>.jsonl, written once; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from absld_search.core import records, teacher_making, trial
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.core.rungs import at, run_rung, rungs
from absld_search.core.trainer import EpochEnd, NonFinite
from absld_search.words import UsageError
from absld_search.workloads import Workload, workload
from benchmarks import fidelity_page, fidelity_report, timing
from benchmarks.options import DATA, parser

DOCS = Path(__file__).parents[1] / "docs"
PLAIN = ({"method": "rslad"}, {"method": "trades"}, {"method": "sat"})
GRACE = {"digits": 3}  # epochs of the lowest rung; 1 elsewhere
STORED = ("clean_accuracy", *fidelity_report.OBJECTIVES)
Words = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """What is asked, and where its answers lie."""

    setting: Workload
    configs: int
    seeds: tuple[int, ...]
    out: Path
    folders: Folders

    @property
    def budgets(self) -> tuple[int, ...]:
        return rungs(self.setting.epochs, 3, GRACE.get(self.setting.name, 1))

    @property
    def file(self) -> Path:
        return self.out / f"{self.setting.name}.jsonl"

    @property
    def scratch(self) -> Path:
        return self.out / f".{self.setting.name}"


@dataclass(frozen=True)
class Task:
    """A training that a way needs: of a configuration (its number) at a budget and seed."""

    way: str
    number: int
    budget: int
    words: Words
    seed: int

    def config(self, study: Study) -> TrialConfig:
        """The training; a trunk's is the whole one, whose rung this is."""
        whole = self.budget == study.setting.epochs
        words = {**self.words, "schedule": "wsd"} if self.way == "trunk" else {**self.words, "epochs": self.budget}
        test = whole or self.way == "trunk"
        return TrialConfig.from_words(words, study.setting.name, self.seed, test=test, folders=study.folders)

    def key(self, study: Study) -> str:
        return at(self.config(study), self.budget).key


def configurations(setting: Workload, count: int, seed: int = 0) -> list[Words]:
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


def tasks(study: Study) -> Iterator[Task]:
    """All of them, seed by seed, so that what is there early is whole."""
    every = list(enumerate(configurations(study.setting, study.configs)))
    whole = study.setting.epochs
    for seed in study.seeds:
        yield from (Task("full", number, whole, words, seed) for number, words in every)
        for number, words in every:
            for budget in study.budgets:
                yield Task("trunk", number, budget, words, seed)
            for budget in study.budgets[:-1]:
                yield Task("compressed", number, budget, words, seed)
                yield Task("clock", number, budget, _own_clock(words, budget, whole), seed)


def _own_clock(words: Words, budget: int, epochs: int) -> Words:
    """Temperatures move as much faster as there are fewer epochs to move in."""
    faster = {"temperature_lr": words["temperature_lr"] * epochs / budget} if "temperature_lr" in words else {}
    return {**words, **faster}


def stored(study: Study) -> dict[str, dict[str, Any]]:
    """{key: line} of what is there; a line that a kill has torn is not."""
    found: dict[str, dict[str, Any]] = {}
    for line in study.file.read_text(encoding="utf-8").splitlines() if study.file.exists() else []:
        try:
            record = json.loads(line)
            found[record["key"]] = record
        except ValueError:
            continue
    return found


def measure(study: Study, task: Task) -> dict[str, Any]:
    """Train. One that ends in nan has no numbers: it ranks last."""
    began = time.process_time()
    try:
        with torch.random.fork_rng():
            found = _climbed(study, task) if task.way == "trunk" else _looked_at(study, task)
    except NonFinite as error:
        found = {"val": {}, "test": {}, "failed": str(error)}
    return {"key": task.key(study), "seed": task.seed, "words": task.words, "budget": task.budget, **found,
            "cpu_seconds": round(time.process_time() - began, 1)}  # fmt: skip


def _looked_at(study: Study, task: Task) -> dict[str, Any]:
    """{"val": {epoch: metrics}, "test": metrics}: val wherever a rung would look, test at the end."""
    run = trial.Run(task.config(study), study.scratch, lambda *_: None, checkpoint_seconds=float("inf"))
    val: dict[int, dict[str, float]] = {}

    def on_epoch(end: EpochEnd) -> None:
        if end.number in {*study.budgets, task.budget}:
            val[end.number] = _kept(records.metrics_of(run.evaluate("val", run.trainer.deployed)))

    run.trainer.run(on_epoch)
    tested = records.metrics_of(run.evaluate("test", run.selected)) if run.config.test else {}
    return {"val": val, "test": _kept(tested, "test/")}


def _climbed(study: Study, task: Task) -> dict[str, Any]:
    """The same of a rung of a trunk, which stays on disk until its last rung is there."""
    found = run_rung(task.config(study), task.budget, study.scratch, lambda *_: None, checkpoint_seconds=float("inf"))
    return {"val": {task.budget: _kept(found)}, "test": _kept(found, "test/")}


def _kept(metrics: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    return {name: round(metrics[prefix + name], 6) for name in STORED if prefix + name in metrics}


def run(study: Study) -> None:
    """Train whatever is missing."""
    there = stored(study)
    missing = [task for task in tasks(study) if task.key(study) not in there]
    for name in sorted({name for task in missing for name in task.config(study).teacher_names.values()}):
        teacher_making.ensure_teacher(study.setting, name, "cpu", print, study.folders)
    for done, task in enumerate(missing):
        if task.key(study) in there:  # two ways can share a training
            continue
        print(f"{done + 1}/{len(missing)}  {task.way} {task.number} at {task.budget}, seed {task.seed}")
        there[task.key(study)] = line = measure(study, task)
        study.out.mkdir(parents=True, exist_ok=True)
        with open(study.file, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        if task.budget == study.setting.epochs:
            shutil.rmtree(study.scratch, ignore_errors=True)


def collected(study: Study) -> fidelity_report.Found:
    """The numbers of every way at every budget, from what is there; of whole seeds only. Raises: UsageError."""
    there = stored(study)
    seeds = _whole(study, there, ("full", "trunk", "compressed", "clock"))
    ended = (*seeds, *(seed for seed in _whole(study, there, ("full",)) if seed not in seeds))
    if not seeds:
        raise UsageError(f"{study.file} holds no seed whole yet; run the command without --report-only.")
    found = fidelity_report.Found(study.setting.name, study.configs, seeds, ended, study.budgets, _knobs(study))
    for task in tasks(study):
        if task.seed in seeds or (task.seed in ended and task.way == "full"):
            _put(found, study, task, there[task.key(study)])
    return found


def _knobs(study: Study) -> dict[str, np.ndarray]:
    """What a short training may favour; temperatures that never move have rate 0, those of no temperatures too."""
    several = configurations(study.setting, study.configs)
    unsaid = {"learning_rate": study.setting.learning_rate, "temperature_lr": 0.0}
    return {name: np.array([words.get(name, value) for words in several]) for name, value in unsaid.items()}


def _whole(study: Study, there: Mapping[str, Any], ways: tuple[str, ...]) -> tuple[int, ...]:
    """The seeds of which every training of these ways is there."""
    lacks = {task.seed for task in tasks(study) if task.way in ways and task.key(study) not in there}
    return tuple(seed for seed in study.seeds if seed not in lacks)


def _put(found: fidelity_report.Found, study: Study, task: Task, line: Mapping[str, Any]) -> None:
    budgets = study.budgets if task.way == "full" else (task.budget,)
    for budget in budgets:
        way = "truncated" if budget < task.budget else task.way
        found.put(way, budget, task.number, task.seed, line["val"].get(str(budget), {}))
    if task.budget == study.setting.epochs:
        found.put(f"{task.way} test", task.budget, task.number, task.seed, line["test"])


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says. The pages of docs/ are written by the whole measurement alone."""
    more = (("--configs", int, 27, "6 with --short"), ("--seeds", int, 3, "1 with --short"))
    places = (("--workload", str, "digits", "whose trainings"), ("--data-dir", Path, DATA, "where its images lie"))
    parts = parser(__doc__, *more, *places)
    parts.add_argument("--lines", type=Path, help="trainings and tables; docs/results/fidelity, or OUT/fidelity")
    parts.add_argument("--image", type=Path, help="the picture; docs/images/fidelity.png, or OUT/fidelity/fidelity.png")
    parts.add_argument("--report-only", action="store_true", help="train nothing")
    told = parts.parse_args(words)
    if told.configs < 6 or told.seeds < 1:
        parts.error("--configs must be at least 6, --seeds at least 1")
    if told.short:
        told.configs, told.seeds = 6, 1
    short = told.out / "fidelity" if told.short else None
    told.lines = told.lines or short or DOCS / "results" / "fidelity"
    told.image = told.image or (short or DOCS / "images") / "fidelity.png"
    return told


def main(words: Sequence[str] | None = None) -> int:
    """Train every configuration every way, and say how well the short trainings rank."""
    told = asked(words)
    try:
        setting = workload(told.workload)
        folders = Folders(str(told.data_dir.absolute()), "")
        study = Study(setting, told.configs, tuple(range(told.seeds)), told.lines, folders)
        if not told.report_only:
            run(study)
        found = collected(study)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    whole = TrialConfig.from_words({"schedule": "wsd"}, setting.name)
    leaves = {budget: at(whole, budget).schedule.branch_at for budget in study.budgets}
    print(fidelity_page.write(found, leaves, told.lines, told.image))
    kept = ("workload", "configs", "seeds", "rows", "halvings")
    facts = json.loads((told.lines / f"{setting.name}.json").read_text(encoding="utf-8"))
    print(timing.write(told.out, "fidelity", {name: facts[name] for name in kept}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
