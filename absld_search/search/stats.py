"""Statistics of few paired seeds: interval, exact test, correction for several comparisons, seeds needed."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
"""The level at which a difference counts as decided, after Holm's correction."""

EXACT_LIMIT = 16
"""Up to this many pairs all 2^n sign patterns are enumerated; beyond it, 2^16 random ones are drawn."""


class Paired(NamedTuple):
    """Mean of n paired differences, its 95 % interval, and the two-sided p value of "no difference"."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(difference: Any) -> Paired:
    """Interval and test for paired differences (n,), n >= 1; the same input always gives the same output.

    The interval is the bias-corrected and accelerated bootstrap (Efron, JASA 1987). Equal differences give
    that value twice. One pair says nothing about spread: its interval is unbounded. The p value is the exact
    sign-flip permutation test (Fisher, The Design of Experiments 1935): without a difference, either sign was
    as likely.
    """
    values = np.asarray(difference, dtype=float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite and of shape (n,) with n >= 1, got {values}")
    low, high = _interval(values)
    return Paired(float(values.mean()), low, high, _sign_flip(values), values.size)


def holm(p_values: Any) -> NDArray[np.float64]:
    """Adjusted p values (m,), in the given order, at most 1 (Holm, Scand. J. Statist. 1979)."""
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values must be of shape (m,) and in [0, 1], got {p}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    return adjusted


def floor(n: int, comparisons: int = 1) -> float:
    """Smallest Holm-adjusted p value that n paired seeds can reach among `comparisons`."""
    if n < 0 or comparisons < 1:
        raise ValueError(f"n must be at least 0 and comparisons at least 1, got n={n}, comparisons={comparisons}")
    return min(1.0, comparisons * 2.0 ** (1 - n))


def seeds_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """Smallest number of paired seeds that can decide at all: whose `floor` is below alpha, in (0, 1]."""
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}")
    n = 1
    while floor(n, comparisons) >= alpha:
        n += 1
    return n


def expected_worst(num_classes: int, n: int, accuracy: float) -> float:
    """Worst class accuracy to expect of classes that are all equal, with n >= 1 test images each.

    It shows how far the minimum over classes is biased low: ten classes at 0.5 read 0.476 with 1000 images
    each, and 0.423 with 100.
    """
    at_least = stats.binom.sf(np.arange(n), n, accuracy)  # P(a class has more than 0 ... n - 1 hits)
    return float(np.sum(at_least**num_classes) / n)


def _mean(sample: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    # Rounded, so that resamples with the same mean tie in spite of the order of summation: ties decide p and interval.
    return np.round(sample.mean(axis=axis), 12)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    if values.size == 1:
        return -np.inf, np.inf
    # Equal but for the last bits: the bootstrap has no spread to work with, and would answer nan.
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return float(values.mean()), float(values.mean())
    found = stats.bootstrap((values,), _mean, method="BCa", vectorized=True, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _sign_flip(values: NDArray[np.float64]) -> float:
    if values.size == 1 or not values.any():
        return 1.0
    found = stats.permutation_test(
        (values,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**EXACT_LIMIT,
        batch=4096,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
