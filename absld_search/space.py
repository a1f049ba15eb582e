"""The words of a search space. A file in `search_spaces/` says what varies; nothing here knows on what.

Every parameter of a study has exactly one role (after Google's Deep Learning Tuning Playbook):

`fixed`   the same in every trial, and so a caveat on every conclusion
`arms`    what the study compares; an arm lists only what it changes
`tuned`   sampled anew in each arm with the same budget, so that no arm wins by a luckier setting
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Self

from absld_search.words import UsageError, require_known, unknown

Value = float | int | str | bool
DIRECTIONS = ("max", "min")


class _Worded:
    """What is written with keywords; a wrong one is told before a dataclass's own TypeError, which names no other."""

    def __new__(cls, *_: object, **words: object) -> Self:
        known: list[str] = [each.name for each in fields(cls)] if is_dataclass(cls) else []
        for word in words:
            require_known(f"{cls.__name__}: field", word, known)
        return super().__new__(cls)


@dataclass(frozen=True)
class Uniform(_Worded):
    """A real number in [low, high]. `when` names the choices under which it exists at all."""

    low: float
    high: float
    when: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class LogUniform(_Worded):
    """A real number in [low, high], low > 0, equally likely in every decade."""

    low: float
    high: float
    when: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice(_Worded):
    """One of the given values."""

    options: tuple[Value, ...]
    when: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Teachers(_Worded):
    """One of the workload's teachers: becomes a `Choice` as soon as the workload is known."""

    when: Mapping[str, Value] = field(default_factory=dict)


Distribution = Uniform | LogUniform | Choice | Teachers


@dataclass(frozen=True)
class SearchSpace(_Worded):
    """One question about class-wise robust fairness. Raises: UsageError when the roles contradict.

    An arm that gives a value to a tuned parameter takes it out of that arm's search.
    `objectives` maps metric names to "max" or "min". None: the mean of the worst classes (CVaR-20 %, from 50
    classes on CVaR-10 %) and the mean robust accuracy; the minimum itself is too noisy to search on.
    `constraints` maps metric names to what they must reach, such as ">= 0.80". `try_first` holds points that are
    known to be worth a trial, whole or in part.
    """

    fixed: Mapping[str, Value] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    tuned: Mapping[str, Distribution] = field(default_factory=dict)
    objectives: Mapping[str, str] | None = None

    constraints: Mapping[str, str] = field(default_factory=dict)
    try_first: tuple[Mapping[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if not self.arms:
            raise UsageError("arms is empty: a study has at least one arm.")
        if self.objectives is not None and not self.objectives:
            raise UsageError("objectives is empty: a study has at least one objective.")
        for arm in self.arms:
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", arm):
                raise UsageError(f"arms: {arm!r} must be 1 to 32 letters, digits, '_', '.' or '-'.")
        _check_roles(self)
        for name, direction in (self.objectives or {}).items():
            if direction not in DIRECTIONS:
                raise UsageError(f"objectives: {name} is {direction!r}; a direction is 'max' or 'min'.")
        for name, distribution in self.tuned.items():
            _check_distribution(name, distribution)
            _check_condition(name, distribution, self)
        for point in self.try_first:
            _check_point(point, self)

    def words(self, arm: str) -> dict[str, Value]:
        """What is settled in `arm` before anything is sampled."""
        return {**self.fixed, **self.arms[arm]}

    def searched(self, arm: str) -> dict[str, Distribution]:
        """What `arm` still has to find: the tuned parameters to which it gives no value itself."""
        return {name: how for name, how in self.tuned.items() if name not in self.arms[arm]}


def _check_roles(space: SearchSpace) -> None:
    for name in space.fixed:
        if name in space.tuned:
            raise UsageError(f"{name} is both fixed and tuned: a parameter has one role.")
        for arm, changes in space.arms.items():
            if name in changes:
                raise UsageError(f"{name} is both fixed and set by arm {arm!r}: a parameter has one role.")


def _check_distribution(name: str, distribution: Distribution) -> None:
    if not isinstance(distribution, Distribution):
        raise UsageError(f"{name}: tuned takes Uniform, LogUniform, Choice or Teachers, not {distribution!r}.")
    if isinstance(distribution, Choice):
        if len(set(distribution.options)) != len(distribution.options) or not distribution.options:
            raise UsageError(f"{name}: a Choice needs at least one option and no option twice.")
    elif isinstance(distribution, Uniform | LogUniform):
        low, high = distribution.low, distribution.high
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"{name}: the range [{low}, {high}] is empty.")
        if isinstance(distribution, LogUniform) and low <= 0:
            raise UsageError(f"{name}: a LogUniform starts above 0, not at {low}.")


def _check_condition(name: str, distribution: Distribution, space: SearchSpace) -> None:
    """A condition can only look back, at what was sampled before: that keeps sampling one pass."""
    later = list(space.tuned)[list(space.tuned).index(name) :]
    set_by_arms = [key for changes in space.arms.values() for key in changes]
    for other, value in distribution.when.items():
        require_known(f"{name}: `when`: parameter", other, [*space.fixed, *set_by_arms, *space.tuned])
        if other in later and other not in set_by_arms:
            raise UsageError(f"{name}: `when` names {other!r}, which is not settled before {name} is: put it before.")
        possible = _possible(other, space)
        if possible is not None and value not in possible:
            raise unknown(f"{name}: `when`: {other}", str(value), map(str, possible))


def _possible(name: str, space: SearchSpace) -> list[Value] | None:
    """Every value that a parameter can take; None where that is a range, for the workload to say, or for `--set`."""
    how = space.tuned.get(name)
    if name in space.fixed or (how is not None and not isinstance(how, Choice)):
        return None
    said = [changes[name] for changes in space.arms.values() if name in changes]
    return [*said, *(how.options if how else ())]


def _check_point(point: Mapping[str, Value], space: SearchSpace) -> None:
    """What is tried first must be a place in the space; which teachers there are, only the workload knows."""
    for name, value in point.items():
        how = space.tuned.get(require_known("try_first: parameter", name, space.tuned))
        if isinstance(how, Choice) and value not in how.options:
            raise UsageError(f"try_first: {name} is {value!r}, which is none of its options.")
        if isinstance(how, Uniform | LogUniform) and not how.low <= float(value) <= how.high:
            raise UsageError(f"try_first: {name} is {value!r}, outside [{how.low:g}, {how.high:g}].")


def holds(distribution: Distribution, words: Mapping[str, Value]) -> bool:
    """Whether a parameter exists, given what is settled so far."""
    return all(words.get(name) == value for name, value in distribution.when.items())
