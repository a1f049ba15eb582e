"""Do intervals cover, and do tests reject too often? For `benchmarks.statistics`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from absld_search.core import metrics
from absld_search.search import stats
from absld_search.search.stats.worst import expected_minimum
from benchmarks.simulated import CONFIGS, PROFILES, SEEDS, verdicts

Array = NDArray[np.float64]
Row = dict[str, Any]
SEED_COUNTS = (3, 5, 6, 8, 10, 20)
SEED_SD = 0.015  # of a class's true accuracy between seeds


def mean(accuracy: Array) -> Array:
    """Mean over classes (..., C): over images too, where classes have equally many."""
    return np.asarray(accuracy.mean(axis=-1))


def cvar(accuracy: Array) -> Array:
    """CVaR-20 % of (..., C)."""
    return metrics.lowest_means(accuracy, 0.2)


def worst(accuracy: Array) -> Array:
    """Minimum of (..., C)."""
    return np.asarray(accuracy.min(axis=-1))


MEASURES = {"average": mean, "CVaR-20 %": cvar, "worst class": worst}


def coverage_over_images(repetitions: int) -> list[Row]:
    """One training, true class accuracies known: how often the 95 % intervals hold the truth."""
    rows = []
    for name, truth in PROFILES.items():
        for n in (60, 200, 1000):
            rng = np.random.default_rng(n)
            rows.append({"profile": name, "images a class": n} | _coverage(rng, truth, n, repetitions))
    return rows


def _coverage(rng: np.random.Generator, truth: Array, n: int, repetitions: int) -> Row:
    labels = np.repeat(np.arange(truth.size), n)
    hits = rng.binomial(n, truth, size=(repetitions, truth.size))
    correct = (np.arange(n) < hits[..., None]).reshape(repetitions, 1, -1)
    average = [stats.over_images(one, labels, mean) for one in correct]
    tail = [stats.over_images(one, labels, cvar) for one in correct]
    lowest = [stats.worst_interval(one / n, n) for one in hits]
    true_tail = float(cvar(truth))
    return {
        "average covered, %": _covered(average, float(truth.mean())),
        "CVaR-20 % covered, %": _covered(tail, true_tail),
        "debiased worst covered, %": _covered(lowest, float(truth.min())),
        "± %": _error(0.95, repetitions),
        "bias of the minimum, points": 100 * float((hits.min(1) / n).mean() - truth.min()),
        "of the debiased worst": 100 * float(np.mean([one.estimate for one in lowest]) - truth.min()),
        "of CVaR-20 %": 100 * float(np.mean([one.estimate for one in tail]) - true_tail),
    }


def _covered(found: list[Any], truth: float) -> float:
    return 100 * float(np.mean([one.low - 1e-12 <= truth <= one.high + 1e-12 for one in found]))


def _error(share: float, repetitions: int) -> float:
    """Monte-Carlo standard error of a share, in per cent."""
    return 100 * math.sqrt(share * (1 - share) / repetitions)


def debiasing(repetitions: int) -> list[Row]:
    """Bias and root mean square error, in points, of three estimates of one training's worst class."""
    hundred = np.clip(np.random.default_rng(5).normal(0.3, 0.12, 100), 0.03, 0.9)
    rows = []
    for name, truth in {**PROFILES, "100 classes": hundred}.items():
        for n in (100,) if truth.size == 100 else (60, 200, 1000):
            rng = np.random.default_rng([n, truth.size])
            accuracy = rng.binomial(n, truth, size=(4 * repetitions, truth.size)) / n
            rows.append({"profile": name, "images a class": n} | _estimates(accuracy, truth, n))
            few = [stats.worst_interval(one, n) for one in accuracy[: max(1, repetitions // 4)]]
            rows[-1] |= {"covered, %": _covered(few, float(truth.min())), "± %": _error(0.95, len(few))}
    return rows


def _estimates(accuracy: Array, truth: Array, n: int) -> Row:
    lowest, sd = accuracy.min(axis=1), np.sqrt(metrics.binomial_variance(accuracy, n))
    found = {
        "minimum": lowest,
        "raw bootstrap": 2 * lowest - expected_minimum(accuracy, sd),
        "shrunken bootstrap": stats.debiased_worst(accuracy, np.full(truth.size, n)),
    }
    off = {name: 100 * (values - truth.min()) for name, values in found.items()}
    bias = {f"{name}: bias": float(values.mean()) for name, values in off.items()}
    return bias | {f"{name}: rmse": float(np.sqrt((values**2).mean())) for name, values in off.items()}


def coverage_of_arms(repetitions: int) -> list[Row]:
    """Seeds that see the same images: does the arm's interval hold the worst class of a new seed, on average?"""
    rows = []
    hopeless = np.array([0.01, *PROFILES["clear worst"][1:]])  # often without a hit among 60 images
    for name, profile in {**PROFILES, "hopeless": hopeless}.items():
        for n, seeds in ((60, 8), (1000, 6)):
            rng = np.random.default_rng([n, seeds])
            truth = float(_of_seeds(rng, profile, 20_000).min(axis=1).mean())
            found = [_arm(rng, profile, n, seeds) for _ in range(repetitions // 5)]
            rows.append({
                "profile": name, "images a class": n, "seeds": seeds,
                "debiased worst covered, %": _covered(found, truth), "± %": _error(0.95, repetitions // 5),
                "its bias, points": 100 * float(np.mean([one.estimate for one in found]) - truth),
            })  # fmt: skip
    return rows


def _of_seeds(rng: np.random.Generator, profile: Array, seeds: int) -> Array:
    return np.clip(profile + SEED_SD * rng.standard_normal((seeds, profile.size)), 0.01, 0.99)


def _arm(rng: np.random.Generator, profile: Array, n: int, seeds: int) -> stats.Interval:
    correct = verdicts(rng, _of_seeds(rng, profile, seeds)[None], n)[0]
    return stats.arm_worst(correct.reshape(seeds, -1), np.repeat(np.arange(profile.size), n))


def coverage_over_seeds(repetitions: int) -> list[Row]:
    """Paired differences, normal and skewed: the mean of the law must lie in the interval."""
    laws: dict[str, Callable[[np.random.Generator, int], Array]] = {
        "normal": lambda rng, n: rng.standard_normal(n),
        "skewed": lambda rng, n: rng.exponential(size=n) - 1,
    }
    return [_over_seeds(law, draw, n, repetitions) for law, draw in laws.items() for n in SEED_COUNTS]


def _over_seeds(law: str, draw: Callable[..., Array], n: int, repetitions: int) -> Row:
    rng = np.random.default_rng(n)
    drawn = [draw(rng, n) for _ in range(repetitions)]
    held = {
        "sign-flip covered, %": [stats.paired(values)[1:3] for values in drawn],
        "t covered, %": [stats.mean_interval(values) for values in drawn],
        "BCa covered, %": [_bca(values) for values in drawn[: max(1, repetitions // 2)]],
    }
    covered = {name: 100 * float(np.mean([low <= 0 <= high for low, high in found])) for name, found in held.items()}
    width = np.median([high - low for low, high in held["sign-flip covered, %"]])
    return {"law": law, "seeds": n, **covered, "± %": _error(0.95, repetitions),
            "sign-flip width, sd": "unbounded" if math.isinf(width) else float(width)}  # fmt: skip


def _bca(values: Array) -> tuple[float, float]:
    found = bootstrap((values,), np.mean, method="BCa", n_resamples=1999, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def null_check(repetitions: int) -> list[Row]:
    """Two arms of the same truth: how often a difference is claimed. Once with images on which both arms are alike
    but for the seed, once with images that suit one arm by chance."""
    rows = []
    for alike, n, counts in ((True, 60, (6, 8, 10, 20)), (False, 60, (8,)), (False, 1000, (8,))):
        for seeds in counts:
            draws = 2 * repetitions if n == 60 else max(8, repetitions // 2)
            rows += _null(np.random.default_rng([seeds, n, alike]), alike, n, seeds, draws)
    return rows


def null_without_ties(repetitions: int) -> list[Row]:
    """The exact test on differences that never tie, as accuracies of few images do: it must reach its size."""
    rows = []
    for seeds in (6, 8, 10, 20):
        rng, size = np.random.default_rng(seeds), 2 * math.floor(stats.ALPHA * 2**seeds / 2) / 2**seeds
        p = [stats.paired(rng.standard_normal(seeds)).p for _ in range(2 * repetitions)]
        rows.append({"seeds": seeds, "rejected, %": 100 * float(np.mean(np.array(p) <= stats.ALPHA)),
                     "attainable, %": 100 * size, "± %": _error(size, len(p)), "draws": len(p)})  # fmt: skip
    return rows


def _null(rng: np.random.Generator, alike: bool, n: int, seeds: int, draws: int) -> list[Row]:
    rejected: dict[str, list[bool]] = {name: [] for name in MEASURES}
    both: dict[str, list[bool]] = {name: [] for name in MEASURES}
    labels = np.repeat(np.arange(10), n)
    for number in range(draws):
        truth = np.stack([_of_seeds(rng, PROFILES["faal"], seeds) for _ in range(2)])
        found = verdicts(rng, truth, n, configs=SEEDS if alike else CONFIGS)  # (2, S, C, n)
        for name, of in MEASURES.items():
            values = of(found.mean(axis=-1))
            rejected[name].append(stats.paired(values[1] - values[0]).p <= stats.ALPHA)
        if number < draws // 8:  # dearer by far
            first, second = found.reshape(2, seeds, -1)
            intervals = stats.over_both(first, second, labels, list(MEASURES.values()), draws=200)
            for name, one in zip(MEASURES, intervals, strict=True):
                both[name].append(one.low > 0 or one.high < 0)
    size = 2 * math.floor(stats.ALPHA * 2**seeds / 2) / 2**seeds
    return [
        {"arms": "same setting" if alike else "equal on average, not on these images", "images a class": n,
         "seeds": seeds, "measure": name, "rejected over seeds, %": 100 * float(np.mean(hits)),
         "attainable, %": 100 * size, "± %": _error(size, draws), "draws": draws,
         "rejected over seeds and images, %": 100 * float(np.mean(both[name])),
         "±  %": _error(0.05, len(both[name])), "of them": len(both[name])}
        for name, hits in rejected.items()
    ]  # fmt: skip


def stored_null_check(folder: Path, repetitions: int) -> list[Row]:
    """Seeds of one arm, split at random into two "arms": real verdicts, and no difference but the seeds'."""
    from absld_search.core.results import load
    from analysis.confirmed import confirmed

    rng, rows = np.random.default_rng(0), []
    for arm, of_arm in confirmed(load(folder)).items():
        for name in ("robust_accuracy", "worst_class_robust_accuracy", "robust_cvar"):
            values = np.array([seed.measures[name] for seed in of_arm.values()])
            drawn = [rng.choice(values, (2, 8)) for _ in range(repetitions)] if len(values) > 1 else []
            rejected = [stats.paired(one - other).p <= stats.ALPHA for one, other in drawn]
            if rejected:
                rows.append({"arm": arm, "measure": metrics_words(name), "stored seeds": len(values),
                             "rejected, %": 100 * float(np.mean(rejected)), "attainable, %": 100 * 12 / 256,
                             "± %": _error(12 / 256, repetitions)})  # fmt: skip
    return rows


def metrics_words(name: str) -> str:
    """A metric's name, after making sure that there is one."""
    assert name in metrics.NAMES, name
    return name.replace("_", " ")
