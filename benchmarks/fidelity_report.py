"""From the trainings of benchmarks/fidelity.py to how well each way ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks import ranking
from benchmarks.ranking import Array

OBJECTIVES = {
    "robust_accuracy": "robust", "robust_cvar": "CVaR-20 %", "worst_class_robust_accuracy": "worst class",
}  # fmt: skip
WAYS = ("truncated", "compressed", "clock", "trunk")
FAILED = -1.0  # below every accuracy: a training that ended in nan ranks last


@dataclass
class Found:
    """(configurations, seeds) of every objective, by way and budget, and on test at the whole one ("full test")."""

    workload: str
    configs: int
    seeds: tuple[int, ...]  # of which all is there
    ended: tuple[int, ...]  # these, and those of which the whole trainings are: the truth
    budgets: tuple[int, ...]
    knobs: Mapping[str, Array] = field(default_factory=dict)  # (configurations,) of what a rung may be biased by
    values: dict[tuple[str, int, str], Array] = field(default_factory=dict)

    def put(self, way: str, budget: int, number: int, seed: int, metrics: Mapping[str, float]) -> None:
        for name in OBJECTIVES:
            empty = np.full((self.configs, len(self.ended)), FAILED)
            self.values.setdefault((way, budget, name), empty)[number, self.ended.index(seed)] = metrics.get(
                name, FAILED
            )

    def cheap(self, way: str, budget: int, name: str) -> Array:
        """(configurations, `seeds`) of a rung."""
        return self.values[way, budget, name][:, : len(self.seeds)]

    @property
    def whole(self) -> int:
        return self.budgets[-1]

    def truth(self, name: str, seed: int) -> Array:
        """(n,): on test at the whole budget, the mean of all seeds but this one, which is thus fresh."""
        values = self.values["full test", self.whole, name]
        return values[:, 0] if len(self.ended) == 1 else np.delete(values, seed, 1).mean(1)

    def mean(self, of: Callable[[Array, Array], float], way: str, budget: int, name: str) -> Callable[[Any], float]:
        """rows -> the mean over seeds of `of`(a rung's values, the truth) on those configurations."""
        cheap = self.cheap(way, budget, name)
        pairs = [(cheap[:, seed], self.truth(name, seed)) for seed in range(cheap.shape[1])]
        return lambda rows: float(np.mean([of(a[rows], b[rows]) for a, b in pairs]))


def rows(found: Found) -> list[dict[str, Any]]:
    """A row for each way, budget and objective."""
    asked = [(way, budget) for budget in found.budgets[:-1] for way in WAYS]
    asked += [("full", found.whole), ("trunk", found.whole)]
    return [_row(found, way, budget, name) for name in OBJECTIVES for way, budget in asked]


def _row(found: Found, way: str, budget: int, name: str) -> dict[str, Any]:
    agreement = found.mean(ranking.spearman, way, budget, name)
    parts = list(ranking.subsets(found.configs))
    lost, kept = (found.mean(of, way, budget, name) for of in (ranking.regret, ranking.survives))
    return {
        "way": way,
        "budget": budget,
        "objective": name,
        "spearman": agreement(np.arange(found.configs)),
        "interval": ranking.interval(agreement, found.configs),
        "regret": float(np.mean([lost(part) for part in parts])),
        "survives": float(np.mean([kept(part) for part in parts])),
    }


def own_ends(found: Found) -> list[dict[str, Any]]:
    """Spearman of each rung with the end of the same seed under its own schedule: higher than with a fresh seed, and
    the one comparison in which a trunk is not held to how another schedule ends."""
    asked = [(way, budget) for budget in found.budgets[:-1] for way in WAYS] + [("full", found.whole)]
    asked.append(("trunk", found.whole))
    return [_own_end(found, way, budget, name) for name in OBJECTIVES for way, budget in asked]


def _own_end(found: Found, way: str, budget: int, name: str) -> dict[str, Any]:
    cheap = found.cheap(way, budget, name)
    ends = found.cheap("trunk test" if way == "trunk" else "full test", found.whole, name)

    def agreement(rows: Any) -> float:
        return float(np.mean([ranking.spearman(a[rows], b[rows]) for a, b in zip(cheap.T, ends.T, strict=True)]))

    place = {"way": way, "budget": budget, "objective": name, "spearman": agreement(np.arange(found.configs))}
    return {**place, "interval": ranking.interval(agreement, found.configs)}


def differences(found: Found) -> list[dict[str, Any]]:
    """Spearman of one way less another's at the same budget, on the same configurations and seeds."""
    pairs = [("compressed", "truncated"), ("trunk", "truncated"), ("trunk", "compressed"), ("clock", "compressed")]
    return [
        _difference(found, first, second, budget, name)
        for name in OBJECTIVES
        for budget in found.budgets[:-1]
        for first, second in pairs
    ]


def _difference(found: Found, first: str, second: str, budget: int, name: str) -> dict[str, Any]:
    one, other = (found.mean(ranking.spearman, way, budget, name) for way in (first, second))

    def gain(places: Any) -> float:
        return one(places) - other(places)

    place = {"first": first, "second": second, "budget": budget, "objective": name}
    everywhere = gain(np.arange(found.configs))
    return {**place, "difference": everywhere, "interval": ranking.interval(gain, found.configs)}


def tilts(found: Found) -> list[dict[str, Any]]:
    """Which values of a knob a rung ranks too high: Spearman of the knob with (place in the rung less final place),
    places counted from the worst; above 0 the rung favours high values."""
    asked = [(way, budget) for budget in found.budgets[:-1] for way in WAYS] + [("full", found.whole)]
    return [
        _tilt(found, way, budget, name, knob) for knob in found.knobs for name in OBJECTIVES for way, budget in asked
    ]


def _tilt(found: Found, way: str, budget: int, name: str, knob: str) -> dict[str, Any]:
    cheap = found.cheap(way, budget, name)
    pairs = [(cheap[:, seed], found.truth(name, seed)) for seed in range(cheap.shape[1])]

    def tilt(rows: Any) -> float:
        gains = [rankdata(a[rows]) - rankdata(b[rows]) for a, b in pairs]
        return float(np.mean([ranking.spearman(found.knobs[knob][rows], gain) for gain in gains]))

    place = {"way": way, "budget": budget, "objective": name, "knob": knob}
    everywhere = tilt(np.arange(found.configs))
    return {**place, "tilt": everywhere, "interval": ranking.interval(tilt, found.configs)}


def halvings(found: Found, leaves: Mapping[int, int]) -> list[dict[str, Any]]:
    """Successive halving of two thirds of the configurations, each way: mean regret and epochs for all of them."""
    return [_halving(found, way, name, leaves) for name in OBJECTIVES for way in ("full", *WAYS)]


def _halving(found: Found, way: str, name: str, leaves: Mapping[int, int]) -> dict[str, Any]:
    budgets = found.budgets if way != "full" else found.budgets[-1:]
    last = "trunk" if way == "trunk" else "full"
    steps = [found.cheap(last if b == found.whole else way, b, name) for b in budgets]
    lost = []
    for part in ranking.subsets(found.configs):
        for seed in range(len(found.seeds)):
            truth = found.truth(name, seed)[part]
            winner, _ = ranking.halving([values[part, seed] for values in steps])
            lost.append(truth.max() - truth[winner])
    entered = ranking.halving([values[:, 0] for values in steps])[1]
    epochs = sum(n * cost for n, cost in zip(entered, _costs(way, budgets, leaves), strict=True))
    return {"way": way, "objective": name, "regret": float(np.mean(lost)), "epochs": epochs}


def _costs(way: str, budgets: tuple[int, ...], leaves: Mapping[int, int]) -> list[int]:
    """Epochs of each rung for one that climbed to it; `leaves`: where a trunk's branch of that length begins."""
    if way in ("compressed", "clock", "full"):
        return list(budgets)
    before = [0, *((leaves[budget] if way == "trunk" else budget) for budget in budgets)]
    return [budget - there for budget, there in zip(budgets, before, strict=False)]


def ends(found: Found) -> list[dict[str, Any]]:
    """The two schedules at the whole budget, on test: mean over configurations and seeds, and how they agree."""
    result = []
    for name in OBJECTIVES:
        step, wsd = (found.cheap(f"{way} test", found.whole, name).mean(1) for way in ("full", "trunk"))
        gain = wsd - step
        between = ranking.interval(lambda places, gain=gain: float(gain[places].mean()), found.configs)  # type: ignore[misc]
        result.append({"objective": name, "step": float(step.mean()), "wsd": float(wsd.mean()), "best_step": float(
            step.max()), "best_wsd": float(wsd.max()), "difference": float(gain.mean()), "interval": between,
            "spearman": ranking.spearman(step, wsd)})  # fmt: skip
    return result
