"""A request, resolved: everything a study will do, settled and checked before anything is created."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from absld_search.core import data, metrics, rungs
from absld_search.core.config import VIEWS, TrialConfig
from absld_search.core.evaluation import EVALUATION_SEED, KINDS, SEARCH_ATTACKS
from absld_search.core.files import Folders
from absld_search.core.schedules import Schedule
from absld_search.core.trainer import Options
from absld_search.search import constraints as constraining
from absld_search.search import samplers, scheduler
from absld_search.search.constraints import Constraint
from absld_search.search.request import Arm, Request
from absld_search.space import Choice, Distribution, LogUniform, SearchSpace, Teachers, Uniform, Value, holds
from absld_search.words import UsageError, require_known
from absld_search.workloads import Workload, workload

CONFIRM_SEEDS_FROM = 1000  # seed indices that search never uses
BUDGETED_TRIALS = 1000  # in each arm, where time or epochs are the budget and nobody said how many


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
    constraints: tuple[Constraint, ...] = ()
    stopping: str = "none"

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

    @property
    def num_classes(self) -> int:
        """Of the workload's data set."""
        return data.shape(self.setting.dataset)[0]

    def rungs(self, arm: Arm) -> tuple[int, ...]:
        """The lengths of an arm's trainings in epochs, ascending; one where nothing is stopped early."""
        schedule = self.config(arm.words, seed=0).schedule
        whole, grace = schedule.epochs, self._grace(schedule)
        return rungs.rungs(whole, self.request.eta, grace) if self.stops(arm) else (whole,)

    def stops(self, arm: Arm) -> bool:
        """Whether some of an arm's trials may be stopped early."""
        return self.stopping != "none" and bool(arm.tuned) and len(arm.first) < arm.trials

    def _grace(self, schedule: Schedule) -> int:
        """Epochs of an arm's shortest training: in one, a rate that falls in steps never falls. Raises: UsageError."""
        eta, grace, whole = self.request.eta, self.request.grace, schedule.epochs
        if eta < 2:
            raise UsageError(f"--eta must be at least 2, not {eta}.")
        if grace is not None and not 1 <= grace <= whole:
            raise UsageError(f"--grace must be from 1 to the {whole} epochs of a whole training, not {grace}.")
        least = 2 if schedule.kind == "step" else 1
        return min(whole, max(least, round(whole / eta**2))) if grace is None else grace

    def teachers(self) -> list[str]:
        """Every teacher that a training of this study can ask for."""
        found: set[str] = set()
        for arm in self.arms:
            for method, teacher in itertools.product(_may_be(arm, "method"), _may_be(arm, "teacher")):
                config = self.config({**arm.words, **method, **teacher}, seed=0)
                found |= set(config.teacher_names.values())
        return sorted(found)

    def methods(self) -> list[tuple[str, Options]]:
        """Every method that a training of this study can run, with what its paper settles beside it."""
        found: list[tuple[str, Options]] = []
        for arm in self.arms:
            for method in _may_be(arm, "method"):
                config = self.config({**arm.words, **method}, seed=0)
                first = [config.options.init_from] if config.warm_up() else []
                found += [(name, config.options) for name in (config.method, *first)]
        return found

    def fingerprint(self, arm: Arm) -> dict[str, Any]:
        """What may not change under a study's name; more trials, seeds or arms are no change."""
        tuned = {name: {"kind": type(how).__name__, **asdict(how)} for name, how in arm.tuned.items()}
        return {
            **{f"words.{name}": value for name, value in arm.words.items()},
            **{f"tuned.{name}": how for name, how in tuned.items()},
            "objectives": dict(self.objectives),
            **{f"workload.{name}": value for name, value in self.setting.identity().items()},
            "search_seeds": list(self.search_seeds),
            "attacks": list(KINDS),
            "evaluation_seed": EVALUATION_SEED,
            **({"constraints": [str(each) for each in self.constraints]} if self.constraints else {}),
        }


KINDS_IN_SEARCH = {KINDS[attack] for attack in SEARCH_ATTACKS}
MEASURED = [name for name in metrics.NAMES if KINDS_IN_SEARCH & set(name.split("_"))]  # what an objective can be


def _may_be(arm: Arm, name: str) -> list[dict[str, Value]]:
    """What a parameter is in an arm: one of the choices, or what the arm or the default says."""
    how = arm.tuned.get(name)
    return [{name: value} for value in how.options] if isinstance(how, Choice) else [{}]


def resolve(request: Request, space: SearchSpace) -> Plan:
    """The plan for a request. Raises: UsageError naming the field that is wrong."""
    setting = workload(request.workload)
    objectives = _objectives(space, setting)
    trials = _trials(request, setting)
    arms = tuple(_arm(space, name, request, setting, trials) for name in _named(request, space))
    confirm = range(CONFIRM_SEEDS_FROM, CONFIRM_SEEDS_FROM + (8 if request.seeds is None else request.seeds))
    sampler = samplers.require(request.sampler or setting.sampler)
    stopping = require_known("--stopping", request.stopping, scheduler.STOPPING)
    search = tuple(range(request.search_seeds))
    limits = _constraints(request, space)
    if request.race and request.trials is None and _budgeted(request):
        raise UsageError("--race with a budget needs --trials: a race begins when an arm has all its trials.")
    plan = Plan(request, setting, objectives, arms, tuple(confirm), search, sampler, limits, stopping)
    for arm in arms:
        if stopping != "none" and "epochs" in arm.tuned:
            raise UsageError(f"--stopping {stopping}: epochs is tuned, so trainings have no common length to stop at.")
        _check_corners(plan, arm, space)
    return plan


def _objectives(space: SearchSpace, setting: Workload) -> dict[str, str]:
    """What is optimised: the space's own, or the tail of the classes and the mean. Raises: UsageError."""
    if space.objectives is None:
        num_classes, *_ = data.shape(setting.dataset)
        return {metrics.tail_objective(num_classes): "max", "robust_accuracy": "max"}
    for name, direction in space.objectives.items():
        require_known("objective", name, MEASURED)
        if metrics.NAMES[name] != direction:
            raise UsageError(f"objectives: {name} is better at its {metrics.NAMES[name]}, not its {direction}.")
    return dict(space.objectives)


def _named(request: Request, space: SearchSpace) -> list[str]:
    """The arms that are asked for, in the space's order: its first is what the others are compared with."""
    wanted = {require_known("--arms", name, space.arms) for name in request.arms}
    return [name for name in space.arms if not wanted or name in wanted]


def _trials(request: Request, setting: Workload) -> int:
    """Of each arm that has something to tune."""
    if request.trials is not None:
        return request.trials
    return BUDGETED_TRIALS if _budgeted(request) else setting.trials


def _budgeted(request: Request) -> bool:
    budgets = (request.time_budget, request.gpu_hours, request.epochs_budget)
    return any(each is not None for each in budgets)


def _constraints(request: Request, space: SearchSpace) -> tuple[Constraint, ...]:
    """The space's and the command line's; the latter win. Raises: UsageError."""
    words = {**space.constraints, **dict(map(constraining.from_flag, request.constraints))}
    return tuple(constraining.parse(name, text, MEASURED) for name, text in words.items())


def _arm(space: SearchSpace, name: str, request: Request, setting: Workload, trials: int) -> Arm:
    for key in request.set:
        if key in space.tuned or any(key in changes for changes in space.arms.values()):
            role = "tuned" if key in space.tuned else "set by the arms"
            already = f"the space {request.space} already says what it is ({role})"
            raise UsageError(f"--set {key}: {already}. Change it in a copy of the space.")
    words = {**space.words(name), **request.set}
    tuned = {key: _settled(how, setting) for key, how in space.searched(name).items()}
    if not tuned:
        return Arm(name, words, tuned, 1, ())
    grid = _grid(tuned, trials)
    known = [{key: value for key, value in point.items() if key in tuned} for point in space.try_first]
    first = _once([_defaults(words, tuned, setting), *known])
    return Arm(name, words, tuned, len(grid) or trials, grid or first)


def _once(points: Iterable[dict[str, Value]]) -> tuple[dict[str, Value], ...]:
    """Without empty points and those that Optuna would take for one that is there: it gives none of them a trial."""
    found: list[dict[str, Value]] = []
    for point in filter(None, points):
        if not any(_same(point, known) for known in found):
            found.append(point)
    return tuple(found)


def _same(point: Mapping[str, Value], known: Mapping[str, Value]) -> bool:
    return point.keys() == known.keys() and all(_close(value, known[name]) for name, value in point.items())


def _close(one: Value, other: Value) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=1e-5)


def _settled(how: Distribution, setting: Workload) -> Distribution:
    return Choice(tuple(setting.teachers), how.when) if isinstance(how, Teachers) else how


def _grid(tuned: Mapping[str, Distribution], trials: int) -> tuple[dict[str, Value], ...]:
    """Every combination, where there are only unconditional choices and trials for all: nothing to guess then."""
    choices = [how.options for how in tuned.values() if isinstance(how, Choice) and not how.when]
    if len(choices) < len(tuned) or math.prod(map(len, choices)) > trials:
        return ()
    return tuple(dict(zip(tuned, values, strict=True)) for values in itertools.product(*choices))


def _defaults(words: Mapping[str, Value], tuned: Mapping[str, Distribution], setting: Workload) -> dict[str, Value]:
    """What a training takes where nothing is said, of what is tuned: the papers' and the workload's values, the first
    point that is tried."""
    try:
        config = TrialConfig.from_words(words, setting.name)
    except UsageError:
        return {}  # `_check_corners` says it, and of which arm
    chosen = {"method": config.method, "teacher": config.teacher, "schedule": config.schedule.kind}
    chosen |= {word: getattr(config.augmentation, name) for word, name in VIEWS.items()}
    defaults: dict[str, Any] = {**asdict(config.schedule), **asdict(config.options), **config.hyperparameters, **chosen}
    point: dict[str, Value] = {}
    for name, how in tuned.items():
        if name in defaults and holds(how, {**words, **point}) and _inside(how, defaults[name]):
            point[name] = defaults[name]
    return point


def _inside(how: Distribution, value: Value) -> bool:
    if isinstance(how, Choice):
        return value in how.options
    return not isinstance(how, Teachers) and not isinstance(value, str) and how.low <= value <= how.high


def _check_corners(plan: Plan, arm: Arm, space: SearchSpace) -> None:
    """A value in the space that a training refuses would fail trials hours later: refuse it now."""
    values = {name: how.options if isinstance(how, Choice) else _ends(how) for name, how in arm.tuned.items()}
    first = {name: options[0] for name, options in values.items()}
    for corner in [{}, *({name: value} for name, options in values.items() for value in options)]:
        try:
            config = plan.config({**arm.words, **first, **corner}, seed=0)
            lengths = plan.rungs(arm)
            rungs.check(config, lengths if len(lengths) > 1 else ())
        except UsageError as error:
            raise UsageError(f"{_place(str(error), plan, arm, space)}: {error}") from None


def _place(message: str, plan: Plan, arm: Arm, space: SearchSpace) -> str:
    """Where the first word stands that a refusal names: it is to be mended there."""
    roles = {"": space.arms[arm.name], "tuned": arm.tuned, "--set": plan.request.set, "fixed": space.fixed}
    named = re.findall(r"\w+", message.partition(". ")[0])
    role = next((role for name in named for role, words in roles.items() if name in words), "")
    return f"{role}, in arm {arm.name!r}" if role else f"arm {arm.name!r}"


def _ends(how: Distribution) -> tuple[float, float]:
    assert isinstance(how, Uniform | LogUniform)  # teachers have become a choice by now
    return how.low, how.high
