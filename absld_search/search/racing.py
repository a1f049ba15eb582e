"""Racing: more seeds for the configurations whose place on the front is in doubt, and for no others.

Best-arm identification by confidence (after Maron and Moore, NIPS 1993; the choice between a contender and its rival
after LUCB, Kalyanakrishnan et al., ICML 2012), for a front: the probability of being on it is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DELTA = 0.05  # a place on the front is decided at a probability below this, or above one minus it
DRAWS = 400
MOST_SEEDS = 8  # of one configuration
LEAST_SEEDS = 2  # of two configurations, before anything is known about the noise


class Samples(NamedTuple):
    """Configuration -> its seeds' objectives (n, k), more is better everywhere; and whose next seed is under way."""

    gains: Mapping[str, Array]
    under_way: frozenset[str] = frozenset()


def samples(
    objectives: Mapping[str, str], trials: Iterable[Mapping[str, Any]], trainings: Iterable[Mapping[str, Any]],
    stages: Iterable[str],
) -> Samples:  # fmt: skip
    """Of the COMPLETE trials, from the trainings of these stages."""
    signs = np.array([1.0 if way == "max" else -1.0 for way in objectives.values()])
    by_config: dict[str, list[Mapping[str, Any]]] = {}
    for row in trainings:
        if row["stage"] in stages:
            by_config.setdefault(row["config"], []).append(row)
    complete = {trial["trial"]: by_config.get(trial["config"], []) for trial in trials if trial["state"] == "COMPLETE"}
    gains = {}
    for name, rows in complete.items():
        values = [[row["metrics"][key] for key in objectives] for row in rows if _usable(row, objectives)]
        gains[name] = np.array(values, dtype=float).reshape(-1, len(objectives)) * signs
    busy = frozenset(name for name, rows in complete.items() if any(r["state"] in ("WAITING", "RUNNING") for r in rows))
    return Samples({name: found for name, found in gains.items() if len(found)}, busy)


def _usable(row: Mapping[str, Any], objectives: Iterable[str]) -> bool:
    return row["state"] == "COMPLETE" and all(name in row["metrics"] for name in objectives)


def residuals(gains: Iterable[Array]) -> Array:
    """(N, k): how far seeds lie from their configuration's mean, of all configurations, at the noise's own scale.

    The noise is taken to be the same for all, as each has too few seeds for an estimate of its own.
    """
    rows = [(each - each.mean(axis=0)) * np.sqrt(len(each) / (len(each) - 1)) for each in gains if len(each) > 1]
    return np.concatenate(rows) if rows else np.empty((0, 0))


def draws(gains: Mapping[str, Array], noise: Array, count: int = DRAWS, seed: int = 0) -> Array:
    """(count, N, k): what the configurations' true means may be, by bootstrap: mean plus a mean of n residuals.

    The same input gives the same draws.
    """
    random = np.random.default_rng(seed)
    columns = []
    for each in gains.values():
        picked = noise[random.integers(0, len(noise), (count, len(each)))]
        columns.append(each.mean(axis=0) + picked.mean(axis=1))
    return np.stack(columns, axis=1)


def beaten(means: Array) -> NDArray[np.bool_]:
    """(draws, N, N): whether, in a draw (draws, N, k), the second configuration beats the first."""
    here, there = means[:, :, None], means[:, None, :]
    return np.asarray((there >= here).all(axis=-1) & (there > here).any(axis=-1))


def front_probability(gains: Mapping[str, Array], noise: Array | None = None) -> dict[str, float]:
    """Configuration -> how probable it is that its true mean is on the front; needs some noise to resample.

    `noise` (N, k): residuals, where they are known from elsewhere, such as a bootstrap over the images of one training;
    without them those of the seeds are used. With no residuals at all, the front of the means is taken as certain.
    """
    if not gains:
        return {}
    noise = residuals(gains.values()) if noise is None else noise
    if not len(noise):
        noise = np.zeros((1, next(iter(gains.values())).shape[1]))
    found = 1 - beaten(draws(gains, noise)).any(axis=2).mean(axis=0)
    return dict(zip(gains, map(float, found), strict=True))


def next_contender(
    found: Samples, noise: Array | None = None, delta: float = DELTA, most: int = MOST_SEEDS
) -> str | None:
    """Whose next seed tells most about the front; None where it is decided, or every contender has `most` seeds.

    The contender is the one least decided; the seed is its own, or that of the rival who beats it most often, whichever
    has fewer.
    """
    gains = found.gains
    if len(gains) < 2:
        return None
    if noise is None and (first := _unmeasured(found, most)) is not None:
        return first
    noise = residuals(gains.values()) if noise is None else noise
    if not len(noise):
        return None  # what could tell is under way
    losses = beaten(draws(gains, noise))
    chance = 1 - losses.any(axis=2).mean(axis=0)
    names = list(gains)
    doubt = np.minimum(chance, 1 - chance)
    for index in np.argsort(-doubt, kind="stable"):
        if doubt[index] <= delta:
            return None
        rival = int(losses[:, index].mean(axis=0).argmax())
        pair = sorted({int(index), rival}, key=lambda i: (len(gains[names[i]]), i != index))
        free = [names[i] for i in pair if len(gains[names[i]]) < most and names[i] not in found.under_way]
        if free:
            return free[0]
    return None


def _unmeasured(found: Samples, most: int) -> str | None:
    """Before anything is known about the noise, the best few get a second seed."""
    order = sorted(found.gains, key=lambda name: -found.gains[name].mean(axis=0).sum())[:3]
    short = [name for name in order if len(found.gains[name]) < LEAST_SEEDS <= most and name not in found.under_way]
    return short[0] if short else None
