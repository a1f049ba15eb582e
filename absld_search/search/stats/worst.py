"""The worst class: how far the minimum over noisy class accuracies is biased, and what to report instead."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

from absld_search.core.metrics import binomial_variance, shrunken
from absld_search.search.stats.images import Interval, around, class_accuracies, resampled, smoothed
from absld_search.search.stats.seeds import ALPHA

Array = NDArray[np.float64]
Z = float(ndtri(1 - ALPHA / 2))
STEPS = 20  # of the integral below; 400 change a minimum by less than 1e-5


def expected_worst(num_classes: int, n: int, accuracy: float) -> float:
    """Worst class accuracy to expect of classes that are all equal, with n >= 1 test images each.

    It shows how far the minimum over classes is biased low: ten classes at 0.5 read 0.476 with 1000 images
    each, and 0.423 with 100.
    """
    at_least = stats.binom.sf(np.arange(n), n, accuracy)  # P(a class has more than 0 ... n - 1 hits)
    return float(np.sum(at_least**num_classes) / n)


def debiased_worst(class_accuracy: Any, n: Any) -> Array:
    """Worst class accuracy (...) of accuracies (..., C) from n (C,) images, without most of the minimum's bias.

    A parametric bootstrap in closed form: were the shrunken class accuracies (`metrics.shrunken`) true, the
    minimum would on average lie so far below the worst of them; this is added. Chosen by simulation: a bootstrap
    around the raw accuracies leaves more than half of the bias where classes are equal (docs/statistics.md).
    """
    accuracy, n = np.asarray(class_accuracy, dtype=float), np.asarray(n)
    assumed = shrunken(accuracy, n)
    bias = expected_minimum(assumed, np.sqrt(binomial_variance(assumed, n))) - assumed.min(axis=-1)
    # At 0 the cut lifts the expectation instead: there is nothing to correct. And no worst class is better than all
    # are on average: where classes seem more alike than chance allows, that bound has less error than the correction.
    weights = np.broadcast_to(n, accuracy.shape[-1:])
    average = np.minimum(accuracy.mean(axis=-1), accuracy @ (weights / weights.sum()))
    return np.asarray(np.minimum(accuracy.min(axis=-1) - np.minimum(bias, 0), average))


def expected_minimum(mean: Any, sd: Any) -> Array:
    """Expectation (...) of the minimum of independent normals with means and sds (..., C), cut at 0 and 1.

    Cut, because no accuracy lies outside: where all classes are nearly hopeless, the normal's part below 0 would pass
    for bias, and the corrected minimum would exceed the mean of the classes.
    """
    mean, sd = np.broadcast_arrays(np.asarray(mean, dtype=float), np.asarray(sd, dtype=float))
    low, high = (np.clip((mean + side * sd).min(axis=-1), 0, 1) for side in (-4, 4))
    at = low[..., None] + (high - low)[..., None] * np.linspace(0, 1, STEPS)
    above = np.ones_like(at)  # P(the minimum lies above)
    for c in range(mean.shape[-1]):
        above *= ndtr((mean[..., c, None] - at) / sd[..., c, None])
    trapezoid = above.sum(axis=-1) - (above[..., 0] + above[..., -1]) / 2
    return np.asarray(low + (high - low) / (STEPS - 1) * trapezoid)


def worst_interval(class_accuracy: Any, n: Any, draws: int = 400) -> Interval:
    """Debiased worst class of one training (C,) with its 95 % interval for new images, n (C,) each.

    Estimate +- 1.96 standard errors, which are those of the debiased estimate itself under the shrunken class
    accuracies; a worst class without a hit has a width too (`smoothed`). The same input always gives the same output.
    """
    accuracy, n = np.asarray(class_accuracy, dtype=float), np.asarray(n)
    n = np.broadcast_to(n, accuracy.shape)
    assumed = smoothed(np.clip(shrunken(accuracy, n), 0, 1), n)
    drawn = np.random.default_rng(0).binomial(n, assumed, size=(draws, accuracy.size)) / n
    estimate, half = float(debiased_worst(accuracy, n)), Z * float(debiased_worst(drawn, n).std())
    return _fraction(estimate, estimate - half, estimate + half)


def arm_worst(correct: Any, labels: Any, draws: int = 400) -> Interval:
    """Mean over S trainings of the debiased worst class, with a 95 % interval for new seeds and new images.

    `correct` (S, N) on the same images with `labels` (N,). The variance is that over images (bootstrap, the same
    images for all trainings) plus that over seeds; what is private to an image and a seed counts in both, so
    the interval is a little too wide rather than too narrow. Seeds that agree are no certainty: the images are drawn
    with `smoothed` classes, so the interval has a width. One training has `worst_interval`.
    """
    accuracy, n = class_accuracies(correct, labels), np.bincount(np.asarray(labels))
    if len(accuracy) == 1:
        return worst_interval(accuracy[0], n)
    each = debiased_worst(accuracy, n)
    images = debiased_worst(resampled(correct, labels, draws, smooth=True), n).mean(axis=1).var()
    return _fraction(*around(float(each.mean()), float(images), each))


def _fraction(*interval: float) -> Interval:
    return Interval(*(min(1.0, max(0.0, value)) for value in interval))
