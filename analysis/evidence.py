"""What stands behind the worst class of an answer: its interval, its optimism, the classes that differ, the power."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from absld_search.core import metrics
from absld_search.core.results import Tables
from absld_search.search import stats
from absld_search.search.stats.power import MOST_SEEDS
from analysis.confirmed import Seed, chosen
from analysis.verdicts import Verdicts, verdicts

Array = NDArray[np.float64]
POINT = 0.01  # the difference for which power is stated
SPREAD_FROM = 5  # seeds; of fewer, a standard deviation is anybody's guess
CLASSES_SHOWN = 6  # of one arm


@dataclass(frozen=True)
class Worst:
    """The worst classes of one arm on test under the headline's attack, means over seeds; val's optimism.

    The optimism is that of the objective, so it compares the search's own attack on val with the same on test.
    """

    arm: str
    minimum: float
    debiased: float
    low: float  # 95 % interval of the debiased worst class, for new seeds and new images
    high: float
    images: int  # the fewest of a class
    tail: float  # CVaR-20 %, for many classes CVaR-10 %
    rho: float | None  # WAT's: gain in the worst class less loss on average, both relative to the first arm
    objective: str  # the first objective; of this one, both of the following
    search_optimism: float | None  # its value in the search, on val, minus the confirm stage's on test
    val_optimism: float | None  # the confirm stage's value on val minus that on test


@dataclass(frozen=True)
class ClassDifference:
    """A class in which an arm differs from the first arm by McNemar's test; p corrected for the number of classes."""

    arm: str
    against: str
    name: str
    difference: float
    better: int
    worse: int
    holm_p: float


def statistic(measure: str) -> Callable[[Array], Array]:
    """A compared measure as a function of class accuracies (..., C); the mean is that over classes."""
    form = metrics.form_of(measure)
    if form == "{}_accuracy":
        return lambda accuracy: np.asarray(accuracy.mean(axis=-1))
    fraction = {"worst_class_{}_accuracy": 1e-9, "worst_tenth_{}_accuracy": 0.1, "{}_cvar": 0.2}[form]
    return lambda accuracy: metrics.lowest_means(accuracy, max(fraction, 1 / accuracy.shape[-1]))


def worst_rows(tables: Tables, seeds: Mapping[str, Mapping[int, Seed]], on_test: Mapping[str, Verdicts]) -> list[Worst]:
    """One row an arm that was confirmed."""
    kind = metrics.kind_of(next(iter(tables.facts["objectives"])))
    on_val = verdicts(tables, kind=kind, split="val") if kind else {}
    rows = [_worst(tables, arm, one, seeds[arm], on_val.get(arm)) for arm, one in on_test.items()]
    first = on_test.get(tables.facts["arms"][0])
    if first is None:
        return rows
    base = _average_and_worst(first)
    return [replace(row, rho=metrics.rho(*_average_and_worst(on_test[row.arm]), *base)) for row in rows]


def _average_and_worst(found: Verdicts) -> tuple[float, float]:
    worst = stats.class_accuracies(found.correct, found.labels).min(axis=1)
    return float(found.correct.mean()), float(worst.mean())


def _worst(tables: Tables, arm: str, found: Verdicts, seeds: Mapping[int, Seed], on_val: Verdicts | None) -> Worst:
    objective = next(iter(tables.facts["objectives"]))
    accuracy, interval = stats.class_accuracies(found.correct, found.labels), stats.arm_worst(*found[1:3])
    tail = statistic(metrics.tail_objective(len(tables.facts["classes"])))
    on_test = float(np.mean([seed.measures.get(objective, np.nan) for seed in seeds.values()]))
    searched = chosen(tables)[arm].get(f"objective/{objective}")
    val = None if on_val is None else _mean_measure(objective, on_val)
    return Worst(
        arm=arm,
        minimum=float(accuracy.min(axis=1).mean()),
        debiased=interval.estimate,
        low=interval.low,
        high=interval.high,
        images=int(np.bincount(found.labels).min()),
        tail=float(tail(accuracy).mean()),
        rho=None,
        objective=objective,
        search_optimism=_less(searched, on_test),
        val_optimism=_less(val, on_test),
    )


def _less(value: float | None, other: float) -> float | None:
    """The difference; None where either was not measured."""
    return None if value is None or not np.isfinite(value - other) else value - other


def _mean_measure(measure: str, found: Verdicts) -> float:
    kind = metrics.kind_of(measure)
    rows = [metrics.summary(kind, correct, found.labels, len(found.present)) for correct in found.correct]
    return float(np.mean([row[measure] for row in rows]))


def over_both(arm: Verdicts, first: Verdicts, measures: list[str]) -> dict[str, stats.Interval]:
    """Measure -> difference of two arms with its interval for new seeds and new images; {} without common images."""
    common = [seed for seed in arm.seeds if seed in first.seeds]
    if not common or not np.array_equal(arm.labels, first.labels):
        return {}
    found = stats.over_both(arm.at(common), first.at(common), arm.labels, [statistic(m) for m in measures])
    return dict(zip(measures, found, strict=True))


def class_differences(tables: Tables, arms: list[str], found: Mapping[str, Verdicts]) -> list[ClassDifference]:
    """The classes in which each of `arms` differs from the first arm at a corrected p below 0.05, clearest first."""
    first = tables.facts["arms"][0]
    return [row for arm in arms if arm in found and first in found for row in _differing(tables, arm, first, found)]


def _differing(tables: Tables, arm: str, first: str, found: Mapping[str, Verdicts]) -> list[ClassDifference]:
    common = [seed for seed in found[arm].seeds if seed in found[first].seeds]
    if not common or not np.array_equal(found[arm].labels, found[first].labels):
        return []
    tests = stats.mcnemar(found[arm].at(common), found[first].at(common), found[arm].labels)
    clear = sorted((test for test in tests if test.holm_p < stats.ALPHA), key=lambda test: test.holm_p)
    names = [tables.facts["classes"][label] for label in found[arm].present]
    return [
        ClassDifference(arm, first, names[test.label], test.difference, test.better, test.worse, test.holm_p)
        for test in clear[:CLASSES_SHOWN]
    ]


def power(first: str, differences: Mapping[str, list[float]], found: Mapping[str, Verdicts], family: int) -> str:
    """How many seeds, and how many images of a class, would decide a difference of one point; "" where unknown.

    `differences`: each arm but the first -> its paired differences of the worst class; `family`: for how many
    comparisons p is corrected.
    """
    spreads = [float(np.std(values, ddof=1)) for values in differences.values() if len(values) >= SPREAD_FROM]
    shares = _discordances(first, found)
    if not any(spreads) or not shares:  # seeds that all agree, as where nothing is ever right, tell no spread
        return ""
    seeds = stats.seeds_to_decide(max(spreads), POINT, family)
    images = stats.images_to_decide(max(shares), POINT, family)
    most = " or more" if seeds >= MOST_SEEDS else ""
    fewest = min(int(np.bincount(one.labels).min()) for one in found.values())
    return (
        f"To decide a difference of 1 point in the worst class four times out of five takes about {seeds}{most} paired "
        f"seeds on these images (sd of the differences between seeds up to {100 * max(spreads):.1f} points), and for "
        f"one training of each arm about {images} images of that class (up to {100 * max(shares):.0f} % of images are "
        f"judged differently); there are {fewest}."
    )


def _discordances(first: str, found: Mapping[str, Verdicts]) -> list[float]:
    """Share of images that an arm and the first arm judge differently at the same seed, for every other arm."""
    shares = []
    for arm, one in found.items():
        common = [seed for seed in one.seeds if first in found and seed in found[first].seeds]
        if arm != first and common and np.array_equal(one.labels, found[first].labels):
            shares.append(float((one.at(common) != found[first].at(common)).mean()))
    return shares
