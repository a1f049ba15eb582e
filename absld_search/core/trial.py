"""One training from words to numbers. Needs neither Ray nor MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock
from torch import nn

from absld_search.core import checkpoints, data, evaluation, models, records, results, teachers
from absld_search.core.files import Folders, sha256
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Method, checked, in_range, knobs
from absld_search.core.trainer import EpochEnd, NonFinite, Options, Schedule, Trainer, WarmUp
from absld_search.words import UsageError, integer, number, require_known
from absld_search.workloads import (
    FILLS,
    PLAIN,
    Augmentation,
    RobustBenchTeacher,
    TeacherSpec,
    Workload,
    teacher_spec,
    workload,
)

SEARCH_ATTACKS = ("clean", "pgd20")
TEST_ATTACKS = ("clean", "pgd20", "cw20")
SCHEDULE: dict[str, dict[str, float]] = {
    "epochs": {"low": 1},
    "batch_size": {"low": 2},  # batch norm has no statistics of one image
    "learning_rate": {"above": 0},
    "momentum": {"low": 0, "high": 1},
    "weight_decay": {"low": 0},
}
VIEWS = {"crop_fill": "fill", "cutout": "cutout"}  # a word -> the field of Augmentation that it sets
FLOOR_IMAGES = 500  # on which a teacher's clean accuracy must reach its floor
SLOW_ON_CPU = 10_000_000  # parameters from which PGD-20 on val takes hours without a GPU
Report = Callable[[int, dict[str, float]], None]  # (epoch, metrics)


@dataclass(frozen=True)
class TrialConfig:
    """A configuration, whole and checked, plus the seed, device, folders and splits of one training of it."""

    workload: str
    method: str
    teacher: str
    hyperparameters: Mapping[str, Any]  # of the method, every one
    schedule: Schedule
    seed: int = 0
    device: str = "cpu"
    test: bool = False  # the confirm stage: evaluate on test too, once, at the end
    options: Options = field(default_factory=Options)
    augmentation: Augmentation = PLAIN
    folders: Folders = Folders()

    @classmethod
    def from_words(
        cls,
        words: Mapping[str, Any],
        workload_name: str,
        seed: int = 0,
        device: str = "cpu",
        test: bool = False,
        folders: Folders = teachers.NOWHERE,
    ) -> TrialConfig:
        """The only gate from words to types. Raises: UsageError naming the field and the nearest word."""
        setting = workload(workload_name)
        rest = dict(words)
        method = require_known("method", str(rest.pop("method", "absld")), METHODS)
        teacher = _teacher_name(setting, str(rest.pop("teacher", setting.teacher)))
        schedule = _schedule(setting, {key: rest.pop(key) for key in list(rest) if key in SCHEDULE})
        views = _augmentation(setting, {key: rest.pop(key) for key in list(rest) if key in VIEWS})
        chosen = {key: rest.pop(key) for key in list(rest) if key in OPTIONS}
        values = _hyperparameters(setting, method, rest)
        options = _options(METHODS[method](**values), chosen)
        return cls(workload_name, method, teacher, values, schedule, seed, device, test, options, views, folders)

    @property
    def hash(self) -> str:
        """The identity of the configuration: same hash, same training at the same seed."""
        setting = workload(self.workload)
        asked: dict[str, Any] = {
            "workload": setting.identity(),
            "method": self.method,
            "teachers": {role: asdict(teacher_spec(setting, name)) for role, name in self.teacher_names.items()},
            "options": asdict(self.options),
            "start": sha256(Path(self.options.init_from).read_bytes()) if _is_file(self.options.init_from) else None,
            "hyperparameters": dict(self.hyperparameters),
            "schedule": asdict(self.schedule),
        }
        if self.augmentation != workload(self.workload).augmentation:
            asked["augmentation"] = asdict(self.augmentation)
        return sha256(json.dumps(asked, sort_keys=True).encode())[:16]

    @property
    def teacher_names(self) -> dict[str, str]:
        """{role: teacher} of every network that the training asks."""
        named = {"robust": self.teacher, "clean": workload(self.workload).clean_teacher}
        methods = [self.build(), *([found.method] if (found := self.warm_up()) else [])]
        return {role: named[role] for method in methods for role in method.roles()}

    def build(self) -> Method:
        """The method, not yet set up."""
        return METHODS[self.method](**dict(self.hyperparameters))

    def warm_up(self) -> WarmUp | None:
        """What the training starts with, if its start is another method's."""
        name, epochs = self.options.init_from, round(self.options.init_share * self.schedule.epochs)
        if not name or _is_file(name) or not epochs:
            return None
        attack = {key: self.hyperparameters[key] for key in ("eps", "step_size", "num_steps")}
        return WarmUp(METHODS[name](**attack), min(epochs, self.schedule.epochs - 1))

    @property
    def key(self) -> str:
        """The identity of the training."""
        return f"{self.hash}-s{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a queue or a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialConfig:
        """The inverse of `to_dict`."""
        schedule = {**plain["schedule"], "milestones": tuple(plain["schedule"]["milestones"])}
        typed = {
            "schedule": Schedule(**schedule),
            "options": Options(**plain["options"]),
            "augmentation": Augmentation(**plain["augmentation"]),
            "folders": Folders(**plain["folders"]),
        }
        return cls(**{**plain, **typed})


def _hyperparameters(setting: Workload, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every knob of `method`: given, or the workload's, or the paper's value. Raises: UsageError."""
    known = knobs(METHODS[method])
    unknown_to(method, given)
    settled = {**_attack_of(setting), **{k: v for k, v in setting.defaults.items() if k in known}, **given}
    values: dict[str, Any] = {name: field.default for name, field in known.items()}
    values |= {name: checked(METHODS[method], name, value) for name, value in settled.items()}
    METHODS[method](**values)  # what one knob demands of another is checked by the method itself
    return values


OPTIONS = knobs(Options)


def _options(method: Method, given: Mapping[str, Any]) -> Options:
    """What the training does beside its schedule: given, or as the method's paper has it. Raises: UsageError."""
    settled = {**method.training_defaults(), **given}
    found = Options(**{name: checked(Options, name, value) for name, value in settled.items()})  # type: ignore[arg-type]
    start = found.init_from
    if start and not _is_file(start):
        require_known("init_from", start, METHODS)
    elif start and not Path(start).is_file():
        raise UsageError(f"init_from: there is no file {start}.")
    return found


def _is_file(start: str) -> bool:
    return start.endswith(".safetensors")


def _teacher_name(setting: Workload, name: str) -> str:
    """`name` where a teacher goes by it; one that is trained here needs none itself. Raises: UsageError."""
    spec = teacher_spec(setting, name)
    if isinstance(spec, TeacherSpec):
        models.check_name(spec.model)
        if METHODS[require_known("method", spec.method, METHODS)].teacher_roles:
            raise UsageError(f"teacher {name!r}: {spec.method} needs a teacher itself.")
    elif not isinstance(spec, RobustBenchTeacher):
        models.check_name(spec.model)
    return name


def _augmentation(setting: Workload, given: Mapping[str, Any]) -> Augmentation:
    if given and setting.augmentation == PLAIN:
        raise UsageError(f"{next(iter(given))}: workload {setting.name} shows its images as they are.")
    values: dict[str, Any] = {}
    for word, value in given.items():
        if word == "crop_fill":
            values[VIEWS[word]] = require_known(word, str(value), FILLS)
        else:
            values[VIEWS[word]] = in_range(word, integer(word, value), {"low": 0, "high": 64})
    return replace(setting.augmentation, **values)


def unknown_to(method: str, words: Iterable[str]) -> None:
    """Raises: UsageError for the first of `words` that no training of `method` knows."""
    valid = [*knobs(METHODS[method]), *SCHEDULE, *VIEWS, *OPTIONS, "method", "teacher"]
    for word in words:
        require_known("parameter", word, valid)


def _attack_of(setting: Workload) -> dict[str, float | int]:
    return {"eps": setting.eps, "step_size": setting.step_size, "num_steps": setting.num_steps}


def _schedule(setting: Workload, given: Mapping[str, Any]) -> Schedule:
    values = {name: getattr(setting, name) for name in SCHEDULE}
    for name, value in given.items():
        convert = integer if isinstance(values[name], int) else number
        values[name] = in_range(name, convert(name, value), SCHEDULE[name])
    return Schedule(**values, milestones=setting.milestones, lr_factor=setting.lr_factor)


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
        self.train, self.val = _load(self.setting, config)
        self.trainer = _trainer(config, self.setting, self.train)
        self.checkpoint_seconds, self.saved_at = checkpoint_seconds, time.monotonic()
        self.log = records.EpochLog(folder / "epochs.jsonl")

    def run(self) -> dict[str, float]:
        state = checkpoints.newest(self.folder)
        if state is not None:
            self.trainer.load_state_dict(state)
        self.trainer.run(self.on_epoch)
        outcomes = self.evaluate("val", SEARCH_ATTACKS)
        if self.config.test:
            outcomes |= self.evaluate("test", TEST_ATTACKS)
        metrics = records.metrics_of(outcomes)
        self.write(outcomes, metrics)
        return metrics

    def on_epoch(self, end: EpochEnd) -> None:
        last = end.number == self.config.schedule.epochs
        if end.number % self.setting.eval_every == 0 and not last:
            end.metrics |= records.metrics_with_classes(self.evaluate("val", SEARCH_ATTACKS))
        self.log.append(end.number, end.metrics)
        # After the log: a kill in between repeats the epoch and logs it once more, equal.
        if last or time.monotonic() - self.saved_at >= self.checkpoint_seconds:
            checkpoints.save(self.folder, end.number, self.trainer.state_dict())
            self.saved_at = time.monotonic()
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


def _load(setting: Workload, config: TrialConfig) -> tuple[data.Split, data.Split]:
    where = config.folders.data
    return data.load(setting.dataset, setting.split, config.device, where, config.augmentation)


def _trainer(config: TrialConfig, setting: Workload, train: data.Split) -> Trainer:
    channels, size, _ = train.image_shape
    student = models.build(setting.student, train.num_classes, channels, config.seed, size=size)
    if _is_file(config.options.init_from):
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


def teacher(setting: Workload, name: str, train: data.Split, folders: Folders = teachers.NOWHERE) -> teachers.Network:
    """The workload's teacher `name`, ready to be asked about `train`; made first where it is missing."""
    file = ensure_teacher(setting, name, str(train.labels.device), lambda line: None, folders)
    return teachers.load(setting, name, file, train, folders)


def ensure_teacher(
    setting: Workload, name: str, device: str, say: Callable[[str], None], folders: Folders = teachers.NOWHERE
) -> teachers.TeacherFile:
    """The teacher's file; trained or measured first where that has not been done, which `say` is told."""
    return teachers.ensure(setting, name, _Maker(setting, name, device, folders), say, folders)


@dataclass(frozen=True)
class _Maker:
    """How a teacher is trained, and measured on val."""

    setting: Workload
    name: str
    device: str
    folders: Folders

    def train(self, spec: TeacherSpec) -> nn.Module:
        """A teacher by its recipe."""
        words = {**spec.words, "method": spec.method, "epochs": spec.epochs, "learning_rate": spec.learning_rate}
        config = TrialConfig.from_words(words, self.setting.name, spec.seed, self.device, folders=self.folders)
        train, _ = _load(self.setting, config)
        channels, size, _ = train.image_shape
        model = models.build(spec.model, train.num_classes, channels, spec.seed, size=size).to(self.device)
        method = METHODS[spec.method](**dict(config.hyperparameters))
        torch.set_num_threads(1)  # the sums of two threads round otherwise, and everybody should get this teacher
        Trainer(model, method, {}, train, config.schedule, spec.seed).run(lambda end: None)
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
        found = clean if slow else self._evaluated(model, val, SEARCH_ATTACKS)
        return {**found, "images": len(few) if slow else len(val)}

    def _evaluated(self, model: nn.Module, split: data.Split, attacks: tuple[str, ...]) -> dict[str, float]:
        found = evaluation.evaluate(model, split, attacks, self.setting.eps, self.setting.eval_step_size)
        return records.metrics_of({"val": found})
