"""How well one measurement ranks what another one ranks."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
TIMES = 1000  # bootstrap samples


def spearman(first: Array, second: Array) -> float:
    """Rank correlation of two (n,), ties sharing their mean rank; 0 where one does not vary and so says nothing."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else 0.0


def spearman_interval(first: Array, second: Array, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of `spearman` over the n pairs; the same input always gives the same output."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(first), len(first)) for _ in range(TIMES)]
    low, high = np.quantile([spearman(first[i], second[i]) for i in drawn], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
