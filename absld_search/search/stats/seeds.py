"""Statistics of few paired seeds: interval, exact test, correction for several comparisons, seeds needed."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
"""The level at which a difference counts as decided, after Holm's correction."""

EXACT_LIMIT = 16
"""Up to this many pairs all 2^n sign patterns are enumerated; beyond it, 2^16 random ones are drawn."""

Array = NDArray[np.float64]


class Paired(NamedTuple):
    """Mean of n paired differences, its 95 % interval, and the two-sided p value of "no difference"."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(difference: Any) -> Paired:
    """Interval and test for paired differences (n,), n >= 1; the same input always gives the same output.

    The p value is the exact sign-flip permutation test (Fisher, The Design of Experiments 1935): without a
    difference, either sign was as likely. The interval is that test turned around: every difference that the
    test does not reject at 5 %. So the interval excludes 0 exactly where p is at most 0.05, and it is unbounded
    below six pairs, which cannot reach such a p. It assumes that differences lie symmetrically about their mean.
    """
    values = np.asarray(difference, dtype=float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite and of shape (n,) with n >= 1, got {values}")
    mean, means = _rounded(values.mean()), _subset_means(values)
    low, high = _inverted(means)
    return Paired(float(values.mean()), low, high, _sign_flip(means, float(mean)), values.size)


def mean_interval(values: Any) -> tuple[float, float]:
    """95 % interval of the mean over seeds, from Student's t (Biometrika 1908); unbounded for one value (n,)."""
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        return -np.inf, np.inf
    half = stats.t.ppf(1 - ALPHA / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def holm(p_values: Any) -> Array:
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


def _subset_means(values: Array) -> Array:
    """Sorted means of the non-empty subsets of values (n,): all of them, or those of 2^16 random subsets and all.

    Flipping the signs of a subset A of (d - t) takes the sum further from 0 exactly where the mean of A, or of
    its complement, lies beyond t; so these means hold both the test and the interval. A random subset comes
    with its complement, and the whole is among them.
    """
    return np.sort(_rounded(_subsets(values.size) @ values))


@cache
def _subsets(n: int) -> Array:
    """One row a subset: 1 / its size at its members, else 0."""
    members = _members(n)
    return members / members.sum(1, keepdims=True)


def _members(n: int) -> Array:
    if n <= EXACT_LIMIT:
        return ((np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1).astype(float)
    half = np.random.default_rng(0).integers(0, 2, (2 ** (EXACT_LIMIT - 1), n))
    half = half[(half.sum(1) > 0) & (half.sum(1) < n)]
    return np.concatenate([np.ones((1, n)), half, 1 - half]).astype(float)


def _rounded(values: Any) -> Any:
    # So that subsets with the same mean tie in spite of the order of summation: ties decide p and interval.
    return np.round(values, 12)


def _inverted(means: Array) -> tuple[float, float]:
    """The lowest and highest difference that is not rejected at `ALPHA`; `means` sorted, without the empty set's."""
    # A difference t below the mean has p = 2 (1 + number of subset means up to t) / (number of subsets).
    patterns = means.size + 1
    beyond = int(np.floor(ALPHA * patterns / 2))
    return (-np.inf, np.inf) if beyond == 0 else (float(means[beyond - 1]), float(means[-beyond]))


def _sign_flip(means: Array, mean: float) -> float:
    if mean == 0:
        return 1.0
    beyond = np.count_nonzero(means <= 0 if mean > 0 else means >= 0)
    return float(min(1.0, 2 * (1 + beyond) / (means.size + 1)))
