"""Statistics over test images: the same images are resampled for all trainings at once, class by class."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from absld_search.search.stats.seeds import ALPHA

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Class accuracies (..., C) -> a number for each (...)."""

DRAWS = 1000
PSEUDO = 2  # half the square of 1.96
BITS = 32  # verdicts that are told apart at once; with the number of an image before them they fit 64 bits


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


def over_images(correct: Any, labels: Any, statistic: Statistic, draws: int = DRAWS) -> Interval:
    """Mean over S trainings of a statistic, with an interval for new images; the trainings stay as they are.

    `correct` (S, N) are verdicts on the same images, `labels` (N,) in [0, C) with at least one image a class.
    Bias-corrected and accelerated bootstrap (Efron, JASA 1987), stratified by class. It suits means and
    differences of means; a minimum wants `arm_worst`. The same input always gives the same output. Where it has no
    width, because every class was judged alike throughout, quantiles of the draws of `smoothed` images stand in.
    """
    correct, labels = _checked(correct, labels)

    def mean(accuracy: Array) -> Array:
        return statistic(accuracy).mean(axis=-1)

    estimate = float(mean(class_accuracies(correct, labels)))
    found = np.sort(mean(resampled(correct, labels, draws)))
    if np.ptp(found) < 1e-12:
        few = np.quantile(mean(resampled(correct, labels, draws, smooth=True)), (ALPHA / 2, 1 - ALPHA / 2))
        return Interval(estimate, min(estimate, float(few[0])), max(estimate, float(few[1])))
    below = (np.count_nonzero(found < estimate - 1e-12) + np.count_nonzero(found <= estimate + 1e-12)) / (2 * draws)
    shift = float(ndtri(np.clip(below, 1 / draws, 1 - 1 / draws)))
    skew = _acceleration(correct, labels, mean)
    low, high = (_level(shift, skew, level) for level in (ALPHA / 2, 1 - ALPHA / 2))
    return Interval(estimate, float(np.quantile(found, low)), float(np.quantile(found, high)))


def over_both(
    correct: Any, against: Any, labels: Any, statistics: Sequence[Statistic], draws: int = 400
) -> list[Interval]:
    """Difference of two arms in each statistic, mean over seeds, with 95 % intervals for new seeds and new images.

    Verdicts (S, N) of both arms at the same S seeds on the same images. The variance is that over images
    (bootstrap, the same images for all trainings) plus that over seeds, with Satterthwaite's degrees of freedom
    (Biometrics 1946); what is private to an image and a seed counts in both, so it is a little too wide. The draws
    are not smoothed: a class without a hit or a miss in all trainings adds nothing to the variance.
    """
    both = np.concatenate([np.asarray(correct, float), np.asarray(against, float)])
    seeds, here, drawn = len(both) // 2, class_accuracies(both, labels), resampled(both, labels, draws)

    def difference(at: Array) -> Array:
        return at[..., :seeds] - at[..., seeds:]

    found = []
    for statistic in statistics:
        values = statistic(drawn)
        each, images = difference(statistic(here)), difference(values).mean(axis=1).var()
        alike = (
            values.mean(axis=1).var() > 0 and not each.any() and images == 0
        )  # equal verdicts, on images that matter
        found.append(Interval(0.0, 0.0, 0.0) if alike else around(float(each.mean()), float(images), each))
    return found


def around(estimate: float, images: float, seeds: Array) -> Interval:
    """Estimate and 95 % interval from the variance over images and the values at the seeds (S,), S >= 1.

    Unbounded where neither varies, as of arms that never get anything right: such data tell no spread.
    """
    between = float(seeds.var(ddof=1)) / seeds.size if seeds.size > 1 else np.nan
    if not images + between > 0:
        return Interval(estimate, -np.inf, np.inf)
    freedom = (images + between) ** 2 * (seeds.size - 1) / between**2 if between > 0 else np.inf
    half = float(stdtrit(min(freedom, 1e9), 1 - ALPHA / 2) * np.sqrt(images + between))
    return Interval(estimate, estimate - half, estimate + half)


def resampled(correct: Any, labels: Any, draws: int = DRAWS, seed: int = 0, smooth: bool = False) -> Array:
    """Class accuracies (draws, S, C) of trainings (S, N) on images drawn again, with replacement, in each class.

    `smooth`: a class that has hardly a hit or hardly a miss, of which the images at hand say next to nothing about
    others, gets `PSEUDO` images more of either kind to draw from, as `smoothed` says.
    """
    correct, labels = _checked(correct, labels)
    rng = np.random.default_rng(seed)
    columns = []
    for patterns, counts in _patterns(correct, labels):
        n, weights = counts.sum(), counts
        if smooth and _extreme(counts @ patterns.mean(axis=-1) / n, n):
            both = np.repeat([[0.0], [1.0]], patterns.shape[1], axis=1)
            patterns, weights = np.concatenate([patterns, both]), np.append(counts, [PSEUDO, PSEUDO])
        times = rng.multinomial(n, weights / weights.sum(), size=draws)  # (draws, patterns)
        columns.append(times @ patterns / n)
    return np.stack(columns, axis=-1)


def smoothed(accuracy: Any, n: Any) -> Array:
    """Accuracies (...) from n images each, to draw new images by: those with fewer than two hits or two misses as if
    there had been two more of both (Agresti and Coull, The American Statistician 1998).

    None of 60 images right does not mean that none ever is: drawn from these 60, every new image would be wrong. Not
    monotone at the threshold: of 60, one hit becomes 3/64, which is more than the 2/60 that two hits stay.
    """
    accuracy, n = np.broadcast_arrays(np.asarray(accuracy, dtype=float), np.asarray(n))
    return np.where(_extreme(accuracy, n), (accuracy * n + PSEUDO) / (n + 2 * PSEUDO), accuracy)


def _extreme(accuracy: Any, n: Any) -> Any:
    hits = accuracy * n
    return (hits < PSEUDO - 1e-9) | (hits > n - PSEUDO + 1e-9)


def class_accuracies(correct: Any, labels: Any) -> Array:
    """Class accuracies (S, C) of verdicts (S, N)."""
    correct, labels = _checked(correct, labels)
    return np.stack([counts @ patterns / counts.sum() for patterns, counts in _patterns(correct, labels)], axis=-1)


def _patterns(correct: Array, labels: NDArray[np.int64]) -> list[tuple[Array, NDArray[np.int64]]]:
    """For each class what the trainings made of an image, (patterns, S), and how many images it is true of.

    Images of one class that all trainings judged alike are the same to every statistic of class accuracies.
    """
    found = []
    for label in range(int(labels.max()) + 1):
        of_class = correct[:, labels == label]
        _, first, counts = np.unique(_codes(of_class), return_index=True, return_counts=True)
        found.append((of_class[:, first].T, counts))
    return found


def _codes(correct: Array) -> Any:
    """A number (N,) for each column's pattern: faster by far to tell apart than the columns themselves."""
    code = np.zeros(correct.shape[1], dtype=np.int64)
    for first in range(0, len(correct), BITS):
        rows = correct[first : first + BITS].astype(np.int64)
        code = code << len(rows) | (1 << np.arange(len(rows))[::-1]) @ rows
        # Numbered anew, so that the codes of many trainings do not overflow.
        code = np.unique(code, return_inverse=True)[1]
    return code


def _acceleration(correct: Array, labels: NDArray[np.int64], statistic: Statistic) -> float:
    """From leaving out each image once; images of one class with one pattern share a value."""
    accuracy, influence, times = class_accuracies(correct, labels), [], []
    for label, (patterns, counts) in enumerate(_patterns(correct, labels)):
        n = counts.sum()
        if n < 2:
            continue
        without = np.repeat(accuracy[None], len(patterns), axis=0)
        without[:, :, label] = (n * accuracy[:, label] - patterns) / (n - 1)
        values = statistic(without)
        influence.append((n - 1) * (np.average(values, weights=counts) - values) / n)
        times.append(counts)
    u, w = np.concatenate(influence), np.concatenate(times)
    square = float(w @ u**2)
    return float(w @ u**3) / (6 * square**1.5) if square > 0 else 0.0


def _level(shift: float, skew: float, level: float) -> float:
    at = shift + ndtri(level)
    return float(ndtr(shift + at / (1 - skew * at)))


def _checked(correct: Any, labels: Any) -> tuple[Array, NDArray[np.int64]]:
    correct, labels = np.asarray(correct, dtype=float), np.asarray(labels, dtype=np.int64)
    if correct.ndim != 2 or labels.shape != correct.shape[1:] or not correct.size:
        raise ValueError(f"correct {correct.shape} must be (S, N) and labels {labels.shape} (N,)")
    if np.bincount(labels).min() == 0:
        raise ValueError("every class needs an image")
    return correct, labels
