"""The gate from words to types: a configuration, whole and checked. What passes here can be trained."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from absld_search.core import models, teachers
from absld_search.core.files import Folders, sha256
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Method, checked, in_range, knobs
from absld_search.core.schedules import KINDS, WSD, Schedule
from absld_search.core.trainer import Options, WarmUp
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

SCHEDULE: dict[str, dict[str, float]] = {
    "epochs": {"low": 1},
    "batch_size": {"low": 2},  # batch norm has no statistics of one image
    "learning_rate": {"above": 0},
    "momentum": {"low": 0, "high": 1},
    "weight_decay": {"low": 0},
}
SCHEDULE_WORDS = (*SCHEDULE, "schedule", *WSD)
VIEWS = {"crop_fill": "fill", "cutout": "cutout"}  # a word -> the field of Augmentation that it sets


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
    deterministic: bool = False  # in which mode torch computes; no part of the identity, as the device is none

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
        schedule = _schedule(setting, {key: rest.pop(key) for key in list(rest) if key in SCHEDULE_WORDS})
        views = _augmentation(setting, {key: rest.pop(key) for key in list(rest) if key in VIEWS})
        chosen = {key: rest.pop(key) for key in list(rest) if key in OPTIONS}
        values = _hyperparameters(setting, method, rest)
        options = _options(METHODS[method](**values), chosen, schedule)
        _computable(setting, options, device)
        return cls(workload_name, method, teacher, values, schedule, seed, device, test, options, views, folders)

    @cached_property
    def hash(self) -> str:
        """The identity of the configuration: same hash, same training at the same seed."""
        setting = workload(self.workload)
        asked: dict[str, Any] = {
            "workload": setting.identity(),
            "method": self.method,
            "teachers": {role: asdict(teacher_spec(setting, name)) for role, name in self.teacher_names.items()},
            "options": _told(self.options),
            "start": sha256(Path(self.options.init_from).read_bytes()) if is_file(self.options.init_from) else None,
            "hyperparameters": dict(self.hyperparameters),
            "schedule": self.schedule.identity(),
        }
        if self.augmentation != workload(self.workload).augmentation:
            asked["augmentation"] = asdict(self.augmentation)
        return sha256(json.dumps(asked, sort_keys=True).encode())[:16]

    @property
    def teacher_names(self) -> dict[str, str]:
        """{role: teacher} of every network that the training asks. Raises: UsageError for a role that none has."""
        named = {"robust": self.teacher, "clean": workload(self.workload).clean_teacher}
        methods = [self.build(), *([found.method] if (found := self.warm_up()) else [])]
        asked = [(type(method).__name__, role) for method in methods for role in method.roles()]
        return {role: named[require_known(f"{name}: teacher role", role, named)] for name, role in asked}

    def build(self) -> Method:
        """The method, not yet set up."""
        return METHODS[self.method](**dict(self.hyperparameters))

    def warm_up(self) -> WarmUp | None:
        """What the training starts with, if its start is another method's."""
        name, epochs = self.options.init_from, round(self.options.init_share * self.schedule.horizon)
        if not name or is_file(name) or not epochs:
            return None
        attack = {key: self.hyperparameters[key] for key in ("eps", "step_size", "num_steps")}
        return WarmUp(METHODS[name](**attack), min(epochs, self.schedule.horizon - 1))

    @property
    def key(self) -> str:
        """The identity of the training."""
        return f"{self.hash}-s{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a queue or a file."""
        return asdict(self)

    def described(self) -> dict[str, Any]:
        """The same without the folders of this machine, and with the identities: what another one needs."""
        plain = {name: value for name, value in self.to_dict().items() if name != "folders"}
        return {"key": self.key, "hash": self.hash, "config": plain}

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


def _told(options: Options) -> dict[str, Any]:
    """What of the options makes a training another one; `graphs`, which came later, only where it is on."""
    return {name: value for name, value in asdict(options).items() if name != "graphs" or value}


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


def _options(method: Method, given: Mapping[str, Any], schedule: Schedule) -> Options:
    """What the training does beside its schedule: given, or as the method's paper has it. Raises: UsageError."""
    settled = {**method.training_defaults(), **given}
    found = Options(**{name: checked(Options, name, value) for name, value in settled.items()})  # type: ignore[arg-type]
    if found.drop_once and schedule.kind != "step":
        raise UsageError(f"drop_once leaves out drops, which schedule={schedule.kind} has none of.")
    start = found.init_from
    if start and not is_file(start):
        require_known("init_from", start, METHODS)
    elif start and not Path(start).is_file():
        raise UsageError(f"init_from: there is no file {start}.")
    return found


def _computable(setting: Workload, options: Options, device: str) -> None:
    """Raises: UsageError where the device cannot do it, or it would cost time instead of saving it."""
    if options.graphs and device == "cpu":
        raise UsageError("graphs=True: CUDA graphs need --device cuda.")
    if options.precision == "bf16" and device == "cpu" and models.has_depthwise(setting.student):
        raise UsageError(
            f"precision=bf16: {setting.student} has depthwise convolutions, which are slower in bfloat16 on a CPU. "
            "Use precision=fp32, or a GPU."
        )


def is_file(start: str) -> bool:
    """Whether a start is a file of weights, and not a method."""
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
    _refuse_no_knobs(METHODS[method], words)
    valid = [*knobs(METHODS[method]), *SCHEDULE_WORDS, *VIEWS, *OPTIONS, "method", "teacher"]
    for word in words:
        require_known("parameter", word, valid)


def _refuse_no_knobs(owner: type[Method], words: Iterable[str]) -> None:
    """Raises: UsageError where a class has lost its @dataclass, or one of `words` is written there and yet no knob."""
    bare = [vars(cls) for cls in owner.__mro__ if "__dataclass_fields__" not in vars(cls)]
    lost = [name for own in bare for name, value in own.items() if isinstance(value, Field)]
    written = {name for cls in owner.__mro__ for name in inspect.get_annotations(cls)} - knobs(owner).keys()
    for name in [*lost, *(word for word in words if word in written)]:
        missing = "is @dataclass missing above its class, or knob(...) as its value?"
        raise UsageError(f"{owner.__name__}.{name} is no knob: {missing}")


def _attack_of(setting: Workload) -> dict[str, float | int]:
    return {"eps": setting.eps, "step_size": setting.step_size, "num_steps": setting.num_steps}


def _schedule(setting: Workload, given: Mapping[str, Any]) -> Schedule:
    values = {name: getattr(setting, name) for name in SCHEDULE}
    kind = require_known("schedule", str(given.get("schedule", "step")), KINDS)
    for name in given:
        if name in WSD and kind != "wsd":
            raise UsageError(f"{name} is a word of schedule=wsd, and this is schedule={kind}.")
    for name in SCHEDULE.keys() & given.keys():
        convert = integer if isinstance(values[name], int) else number
        values[name] = in_range(name, convert(name, given[name]), SCHEDULE[name])
    chosen: dict[str, Any] = {name: checked(Schedule, name, given[name]) for name in WSD if name in given}
    return Schedule(**values, milestones=setting.milestones, lr_factor=setting.lr_factor, kind=kind, **chosen)
