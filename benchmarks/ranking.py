"""How well a cheap measurement ranks what a dear one decides: plain functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from absld_search.search.stats import spearman as spearman

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
TIMES = 1000  # samples, of each kind


def order(values: Array) -> Rows:
    """Places (n,) from the highest value to the lowest; of equal ones the earlier first."""
    return np.argsort(-values, kind="stable")


def regret(cheap: Array, truth: Array) -> float:
    """What is lost by taking the one that `cheap` says is best."""
    return float(truth.max() - truth[order(cheap)[0]])


def survives(cheap: Array, truth: Array, share: float = 1 / 3) -> float:
    """1 if the truly best is among the `share` that `cheap` ranks highest, else 0."""
    return float(truth[order(cheap)[: math.ceil(share * len(cheap))]].max() == truth.max())


def halving(rungs: list[Array], eta: float = 3) -> tuple[int, list[int]]:
    """(the winner, how many entered each rung) of successive halving on rung values (n,), lowest rung first.

    Jamieson and Talwalkar, AISTATS 2016, arXiv:1502.07943: of those that entered a rung, 1 / eta go on.
    """
    alive, entered = np.arange(len(rungs[0])), []
    for number, values in enumerate(rungs):
        entered.append(len(alive))
        alive = alive[order(values[alive])]
        if number < len(rungs) - 1:
            alive = alive[: max(1, math.ceil(len(alive) / eta))]
    return int(alive[0]), entered


def resampled(count: int, seed: int = 0) -> Iterator[Rows]:
    """Bootstrap samples of `count` places."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, count, count) for _ in range(TIMES))


def subsets(count: int, seed: int = 0, share: float = 2 / 3) -> Iterator[Rows]:
    """Random `share`s of `count` places, in random order, so that equal values are told apart at random."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(count)[: round(share * count)] for _ in range(TIMES))


def interval(of: Callable[[Rows], float], count: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval over `count` places."""
    values = np.array([of(rows) for rows in resampled(count)])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
