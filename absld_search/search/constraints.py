"""Constraints on what is measured: `clean_accuracy >= 0.80`. A trial that breaks one is never on a front."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from absld_search.core.metrics import is_fraction
from absld_search.words import UsageError, number, require_known

FORM = re.compile(r"(>=|<=)\s*(\S+)")
REASON = re.compile(r"infeasible: (\w+ (>=|<=) \S+) \((\S+)\)")  # as `broken` says it


@dataclass(frozen=True)
class Constraint:
    """A metric of val and the value it must reach (">=") or stay below ("<=")."""

    name: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"

    def violation(self, value: float) -> float:
        """How far `value` is on the wrong side; 0 or less: it is met."""
        return self.bound - value if self.sign == ">=" else value - self.bound


def parse(name: str, words: str, measured: Iterable[str]) -> Constraint:
    """`words` (">= 0.80") on the metric `name`. Raises: UsageError naming what is wrong."""
    require_known("constraint", name, measured)
    match = FORM.fullmatch(words.strip())
    if not match:
        raise UsageError(f"constraint {name}: {words!r} must read '>= NUMBER' or '<= NUMBER'.")
    bound = number(f"constraint {name}", match[2])
    if is_fraction(name) and not 0 <= bound <= 1:
        hint = f"; did you mean {bound / 100:g}?" if 1 < bound <= 100 else "."
        raise UsageError(f"constraint {name}: {bound:g} is not from 0 to 1: accuracies are fractions{hint}")
    return Constraint(name, match[1], bound)


def from_flag(text: str) -> tuple[str, str]:
    """`clean_accuracy >= 0.80` as (name, words). Raises: UsageError."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>]=.*)", text)
    if not match:
        raise UsageError(f"--constraint {text!r} must read 'METRIC >= NUMBER' or 'METRIC <= NUMBER'.")
    return match[1], match[2]


def violations(constraints: Iterable[Constraint], metrics: Mapping[str, float]) -> dict[str, float]:
    """{metric: how far it is on the wrong side}, for every constraint; a metric that is not there breaks it."""
    return {each.name: each.violation(metrics[each.name]) if each.name in metrics else 1.0 for each in constraints}


def broken(constraints: Iterable[Constraint], metrics: Mapping[str, float]) -> str:
    """The broken constraints in words, "" where all are met."""
    constraints = list(constraints)
    found = violations(constraints, metrics)
    return "; ".join(f"infeasible: {each} ({metrics.get(each.name, float('nan')):.4g})" for each in constraints
                     if found[each.name] > 0)  # fmt: skip


def shortfalls(reasons: Iterable[str]) -> dict[str, tuple[int, float | None]]:
    """{constraint: (how many break it, the value of the one that came nearest)} of what `broken` said of trials.

    None: it was measured in none of them.
    """
    values: dict[str, list[float]] = {}
    nearest = {}
    for said, sign, value in (found for reason in reasons for found in REASON.findall(reason)):
        values.setdefault(said, []).append(float(value))
        nearest[said] = max if sign == ">=" else min
    return {said: (len(of), nearest[said](filter(math.isfinite, of), default=None)) for said, of in values.items()}
