"""What a search finds that optimises this or that form of the worst class. For `benchmarks.statistics`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absld_search.core import metrics
from absld_search.search import stats
from benchmarks.simulated import CONFIGS, PROFILES, study, verdicts

Array = NDArray[np.float64]
Row = dict[str, Any]
Form = Callable[[Array, int], Array]  # class accuracies (K, C) from n images each -> (K,)


def soft_min(accuracy: Array, n: int) -> Array:
    """`metrics.soft_min` row by row."""
    return np.array([metrics.soft_min(row) for row in accuracy])


def additive(accuracy: Array, n: int) -> Array:
    """Worst class after shrinking each configuration's class accuracies to configuration + class effects.

    Knows all configurations at once, so a sampler could not be told it; what it would be worth.
    """
    fitted = accuracy.mean(axis=1, keepdims=True) + accuracy.mean(axis=0) - accuracy.mean()
    noise = float(metrics.binomial_variance(accuracy, n).mean())
    spread = float(((accuracy - fitted) ** 2).mean())
    return np.asarray((fitted + max(0.0, 1 - noise / spread) * (accuracy - fitted)).min(axis=1))


FORMS: dict[str, Form] = {
    "minimum": lambda accuracy, n: accuracy.min(axis=1),
    "debiased minimum": lambda accuracy, n: stats.debiased_worst(accuracy, np.full(accuracy.shape[1], n)),
    "shrunken minimum": lambda accuracy, n: metrics.shrunken(accuracy, n).min(axis=1),
    "soft minimum 0.05": soft_min,
    "CVaR-20 %": lambda accuracy, n: np.sort(accuracy, axis=1)[:, :2].mean(axis=1),
    "CVaR-30 %": lambda accuracy, n: np.sort(accuracy, axis=1)[:, :3].mean(axis=1),
    "minimum, configuration + class": additive,
}


def right_order(repetitions: int) -> list[Row]:
    """Two configurations whose three worst classes truly differ by 1 point: how often a form sees the better one."""
    rows = []
    for n in (200, 1000):
        for discordance in (0.5, CONFIGS, 0.08):
            rows += _right_order(n, discordance, 2 * repetitions)
    return rows


def _right_order(n: int, discordance: float, repetitions: int) -> list[Row]:
    rng, found = np.random.default_rng([n, int(1000 * discordance)]), {name: 0.0 for name in FORMS}
    truth = np.stack([PROFILES["fair"]] * 2)
    truth[0, :3] += 0.005
    truth[1, :3] -= 0.005
    del found["minimum, configuration + class"]  # of two configurations it can learn nothing
    for _ in range(repetitions):
        accuracy = _looked_at(rng, truth, n, discordance)
        for name in found:
            better, worse = FORMS[name](accuracy, n)
            found[name] += (better > worse) + 0.5 * (better == worse)
    images = "independent" if discordance >= 0.4 else f"common, discordance {discordance}"
    return [
        {"images a class": n, "images": images, "form": name, "right order": right / repetitions,
         "±": math.sqrt(right * (repetitions - right) / repetitions**3), "repetitions": repetitions}
        for name, right in found.items()
    ]  # fmt: skip


def _looked_at(rng: np.random.Generator, truth: Array, n: int, discordance: float = CONFIGS) -> Array:
    """Class accuracies (K, C) of one training each, on common images; from a discordance of 0.4 on independent."""
    if discordance >= 0.4:
        return rng.binomial(n, truth) / n
    return verdicts(rng, truth[:, None], n, configs=discordance, seeds=discordance)[:, 0].mean(axis=-1)


def studies(repetitions: int) -> list[Row]:
    """Searches over 100 configurations: what the winner is reported at, what it is, what the best one was."""
    rows = []
    for n, draws in ((100, repetitions), (200, repetitions), (500, repetitions // 2), (1000, repetitions // 4)):
        rng = np.random.default_rng(n)
        rows += _summary(n, [_study(rng, n) for _ in range(max(2, draws // 4))])
    return rows


def _study(rng: np.random.Generator, n: int) -> dict[str, tuple[float, float, float]]:
    """{procedure: (optimism of the reported worst class, regret, rank correlation with the true worst class)}."""
    truth = study(rng)
    worst, common, apart = truth.min(axis=1), _looked_at(rng, truth, n), _looked_at(rng, truth, n, 0.5)
    found = {"minimum, independent images": _naive(FORMS["minimum"](apart, n), worst)}
    for name, form in FORMS.items():
        scores = form(common, n)
        found[name] = _naive(scores, worst) if name == "minimum" else (math.nan, *_naive(scores, worst)[1:])
        if name in ("minimum", "CVaR-20 %", "soft minimum 0.05"):
            found[f"{name}, confirmed"] = _confirmed(rng, truth, int(scores.argmax()))
            found[f"{name}, top 8 again, confirmed"] = _confirmed(rng, truth, _again(rng, truth, scores, form))
    return found


def _naive(scores: Array, worst: Array) -> tuple[float, float, float]:
    winner = int(scores.argmax())
    rank = np.corrcoef(scores.argsort().argsort(), worst.argsort().argsort())[0, 1]
    return float(scores[winner] - worst[winner]), float(worst.max() - worst[winner]), float(rank)


def _again(rng: np.random.Generator, truth: Array, scores: Array, form: Form) -> int:
    """The best of the top 8, each trained with 2 more seeds, on 1000 fresh images a class."""
    top = scores.argsort()[-8:]
    fresh = verdicts(rng, np.repeat(truth[top, None], 2, axis=1), 1000).mean(axis=(1, 3))
    return int(top[form(fresh, 1000).argmax()])


def _confirmed(rng: np.random.Generator, truth: Array, winner: int) -> tuple[float, float, float]:
    """Eight fresh seeds on 1000 fresh images a class; reported is the debiased worst class, mean over seeds."""
    accuracy = verdicts(rng, np.repeat(truth[winner][None, None], 8, axis=1), 1000)[0].mean(axis=-1)
    reported = float(stats.debiased_worst(accuracy, np.full(accuracy.shape[1], 1000)).mean())
    worst = truth.min(axis=1)
    return reported - float(worst[winner]), float(worst.max() - worst[winner]), math.nan


def _summary(n: int, found: list[dict[str, tuple[float, float, float]]]) -> list[Row]:
    rows = []
    for name in found[0]:
        optimism, regret, rank = np.array([one[name] for one in found]).T
        rows.append({
            "images a class": n, "optimises": name,
            "optimism, points": _mean(100 * optimism), "± ": _mean_error(100 * optimism),
            "regret, points": _mean(100 * regret), "±": _mean_error(100 * regret),
            "rank correlation": _mean(rank), "studies": len(found),
        })  # fmt: skip
    return rows


def _mean(values: Array) -> float | None:
    return None if np.isnan(values).any() else float(values.mean())


def _mean_error(values: Array) -> float | None:
    return None if np.isnan(values).any() else float(values.std(ddof=1) / math.sqrt(len(values)))
