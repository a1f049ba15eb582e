"""A request, resolved: everything a study will do, settled and checked before anything is created."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from absld_search.core import metrics
from absld_search.core.evaluation import EVALUATION_SEED, KINDS
from absld_search.core.files import Folders
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import knobs
from absld_search.core.trial import COMPUTE_VERSION, TrialConfig
from absld_search.space import Choice, Distribution, SearchSpace, Teachers, Value, holds
from absld_search.words import UsageError, require_known
from absld_search.workloads import Workload, workload

CONFIRM_SEEDS_FROM = 1000  # seed indices that search never uses
SAMPLERS = ("tpe", "gp", "nsga2", "random")


@dataclass(frozen=True)
class Request:
    """What the person asked for, in the command line's words. None: not said."""

    space: str
    question: str
    workload: str
    study: str
    out: Path
    storage: str
    tracking_uri: str
    trials: int | None = None
    seeds: int | None = None
    search_seeds: int = 1
    set: Mapping[str, str] = field(default_factory=dict)
    sampler: str | None = None
    device: str = "cpu"
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    max_concurrent: int | None = None
    address: str | None = None
    command: str = ""
    data_dir: str = ""
    teacher_dir: str = ""


@dataclass(frozen=True)
class Arm:
    """One arm: what is settled, what is searched, how many trials it gets, and which are tried first."""

    name: str
    words: Mapping[str, Value]
    tuned: Mapping[str, Distribution]
    trials: int
    first: tuple[dict[str, Value], ...]


@dataclass(frozen=True)
class Plan:
    """The whole study."""

    request: Request
    setting: Workload
    objectives: Mapping[str, str]
    arms: tuple[Arm, ...]
    confirm_seeds: tuple[int, ...]
    search_seeds: tuple[int, ...]
    sampler: str

    @property
    def folder(self) -> Path:
        """Where everything of this study lies."""
        return self.request.out / self.request.study

    def config(self, words: Mapping[str, Any], seed: int, test: bool = False) -> TrialConfig:
        """One training of a configuration."""
        return TrialConfig.from_words(words, self.setting.name, seed, self.request.device, test, self.folders)

    @property
    def folders(self) -> Folders:
        """Where data and teachers lie, on this start."""
        return Folders(self.request.data_dir, self.request.teacher_dir)

    def teachers(self) -> list[str]:
        """Every teacher that a training of this study may ask."""
        found: set[str] = set()
        for arm in self.arms:
            methods, names = _may_be(arm, "method", "absld"), _may_be(arm, "teacher", self.setting.teacher)
            if any(METHODS[method].teacher_roles for method in methods):
                found |= set(names)
        return sorted(found)

    def fingerprint(self, arm: Arm) -> dict[str, Any]:
        """What may not change under a study's name; more trials, seeds or arms are no change."""
        tuned = {name: {"kind": type(how).__name__, **asdict(how)} for name, how in arm.tuned.items()}
        return {
            **{f"words.{name}": value for name, value in arm.words.items()},
            **{f"tuned.{name}": how for name, how in tuned.items()},
            "objectives": dict(self.objectives),
            **{f"workload.{k}": v for k, v in asdict(self.setting).items() if k not in NOT_IDENTITY},
            "search_seeds": list(self.search_seeds),
            "attacks": list(KINDS),
            "evaluation_seed": EVALUATION_SEED,
            "compute_version": COMPUTE_VERSION,
        }


NOT_IDENTITY = ("summary", "trials", "sampler", "cost")  # of a workload: they change no number


def _may_be(arm: Arm, name: str, default: str) -> list[str]:
    """What a parameter is in an arm: settled, or one of the choices."""
    how = arm.tuned.get(name)
    return [str(v) for v in how.options] if isinstance(how, Choice) else [str(arm.words.get(name, default))]


def resolve(request: Request, space: SearchSpace) -> Plan:
    """The plan for a request. Raises: UsageError naming the field that is wrong."""
    setting = workload(request.workload)
    for name, direction in space.objectives.items():
        require_known("objective", name, metrics.NAMES)
        if metrics.NAMES[name] != direction:
            raise UsageError(f"objectives: {name} is better at its {metrics.NAMES[name]}, not its {direction}.")
    trials = setting.trials if request.trials is None else request.trials
    arms = tuple(_arm(space, name, request, setting, trials) for name in space.arms)
    confirm = range(CONFIRM_SEEDS_FROM, CONFIRM_SEEDS_FROM + (8 if request.seeds is None else request.seeds))
    sampler = require_known("sampler", request.sampler or setting.sampler, SAMPLERS)
    search = tuple(range(request.search_seeds))
    plan = Plan(request, setting, dict(space.objectives), arms, tuple(confirm), search, sampler)
    for arm in arms:
        _check_corners(plan, arm)
    return plan


def _arm(space: SearchSpace, name: str, request: Request, setting: Workload, trials: int) -> Arm:
    for key in request.set:
        if key in space.tuned or any(key in changes for changes in space.arms.values()):
            role = "tuned" if key in space.tuned else "set by the arms"
            raise UsageError(f"--set {key}: {request.space} already says what it is ({role}); it can't be fixed too.")
    words = {**space.words(name), **request.set}
    tuned = {key: _settled(how, setting) for key, how in space.searched(name).items()}
    first = _grid(tuned) or (_paper_defaults(words, tuned, setting),)
    budget = 1 if not tuned else min(trials, len(first)) if _grid(tuned) else trials
    return Arm(name, words, tuned, budget, first if tuned else ())


def _settled(how: Distribution, setting: Workload) -> Distribution:
    return Choice(tuple(setting.teachers), how.when) if isinstance(how, Teachers) else how


def _grid(tuned: Mapping[str, Distribution]) -> tuple[dict[str, Value], ...]:
    """Every combination, where there are only unconditional choices: then nothing needs to be guessed."""
    choices = [how.options for how in tuned.values() if isinstance(how, Choice) and not how.when]
    if not tuned or len(choices) < len(tuned):
        return ()
    return tuple(dict(zip(tuned, values, strict=True)) for values in itertools.product(*choices))


def _paper_defaults(
    words: Mapping[str, Value], tuned: Mapping[str, Distribution], setting: Workload
) -> dict[str, Value]:
    """The papers' values of what is tuned: the first point that is tried."""
    known = knobs(METHODS[require_known("method", str(words.get("method", "absld")), METHODS)])
    defaults: dict[str, Any] = {name: field.default for name, field in known.items()} | {"teacher": setting.teacher}
    point: dict[str, Value] = {}
    for name, how in tuned.items():
        if name in defaults and holds(how, {**words, **point}) and _inside(how, defaults[name]):
            point[name] = defaults[name]
    return point


def _inside(how: Distribution, value: Value) -> bool:
    if isinstance(how, Choice):
        return value in how.options
    return not isinstance(how, Teachers) and how.low <= float(value) <= how.high


def _check_corners(plan: Plan, arm: Arm) -> None:
    """A range of which an end is refused would fail trials hours later: refuse it now."""
    for end in (0, -1):
        corner = dict(arm.words)
        for name, how in arm.tuned.items():
            options = how.options if isinstance(how, Choice) else (how.low, how.high)  # type: ignore[union-attr]
            corner[name] = options[end]
        try:
            plan.config(corner, seed=0)
        except UsageError as error:
            raise UsageError(f"arm {arm.name!r}: {error}") from None
