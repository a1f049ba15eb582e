"""Racing: more seeds for the configurations whose place on the front is in doubt, and for no others.

Best-arm identification by confidence (after Maron and Moore, NIPS 1993; the choice between a contender and its rival
after LUCB, Kalyanakrishnan et al., ICML 2012), for a front: the probability of being on it is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from absld_search.search import fronts

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
DELTA = 0.03  # a place is decided at a probability below this, or above one minus it; chosen by benchmarks.racing
INDIFFERENCE = 0.5  # standard deviations of one seed: who is beaten by less may stand on the front or not
DRAWS = 200
MOST_SEEDS = 16  # of one configuration
LEAST_FREEDOM = 5  # second seeds, before the noise counts as known


class Samples(NamedTuple):
    """Configuration -> its seeds' objectives (n, k), more is better everywhere; whose next seed is under way; and how
    many seeds were asked for in all, where that is more than there are values: a seed can fail."""

    gains: Mapping[str, Array]
    under_way: frozenset[str] = frozenset()
    asked: Mapping[str, int] = {}

    def free(self, name: str, most: int) -> bool:
        """Whether a configuration may get one more seed."""
        return max(len(self.gains[name]), self.asked.get(name, 0)) < most and name not in self.under_way


def samples(
    objectives: Mapping[str, str], trials: Iterable[Mapping[str, Any]], trainings: Iterable[Mapping[str, Any]],
    stages: Iterable[str],
) -> Samples:  # fmt: skip
    """Of the COMPLETE trials, from the trainings of these stages."""
    signs = fronts.signs(objectives.values())
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
    asked = {name: len(rows) for name, rows in complete.items()}
    return Samples({name: found for name, found in gains.items() if len(found)}, busy, asked)


def _usable(row: Mapping[str, Any], objectives: Iterable[str]) -> bool:
    return row["state"] == "COMPLETE" and all(name in row["metrics"] for name in objectives)


class Noise(NamedTuple):
    """Covariance (k, k) of one seed, the same for every configuration, and the degrees of freedom it was found with."""

    covariance: Array
    freedom: int


def pooled(gains: Iterable[Array]) -> Noise:
    """From how far the seeds lie from their configuration's mean: each has too few for a noise of its own."""
    rows = [each - each.mean(axis=0) for each in gains if len(each) > 1]
    freedom = sum(len(each) - 1 for each in rows)
    if not freedom:
        return Noise(np.zeros((0, 0)), 0)
    residuals = np.concatenate(rows)
    return Noise(residuals.T @ residuals / freedom, freedom)


def draws(gains: Mapping[str, Array], noise: Noise, count: int = DRAWS, seed: int = 0) -> Array:
    """(count, N, k): what the configurations' true means may be, by a parametric bootstrap; the same input gives the
    same draws.

    Normal, with the pooled covariance over n; the scale itself is drawn too, from what so few residuals leave open.
    """
    random = np.random.default_rng(seed)
    width = len(noise.covariance)
    scale = np.sqrt(noise.freedom / random.chisquare(noise.freedom, count)) if noise.freedom else np.zeros(count)
    normal = random.multivariate_normal(np.zeros(width), noise.covariance, (count, len(gains)), method="eigh")
    n = np.array([len(each) for each in gains.values()])
    means = np.array([each.mean(axis=0) for each in gains.values()])
    return np.asarray(means + normal * scale[:, None, None] / np.sqrt(n)[:, None])


def beats(means: Array, index: int, margin: Array) -> Mask:
    """(draws, N): whether, in a draw (draws, N, k), each configuration beats that at `index` by `margin` (k,)."""
    mark = means[:, index, None] + margin
    return fronts.beats(means, mark) & (np.arange(means.shape[1]) != index)


def contested(means: Array, margin: Array) -> tuple[Mask, Mask]:
    """(draws, N) each: whether any other beats a configuration by `margin` (k,), and whether any comes that near to it.

    Who does either is on the draw's front, or is beaten by who is: so each is compared with the front alone, and the
    front's own members with who would be on it without them too. Compared with all, a seed would cost N^2. In all draws
    at once: in descending lexicographic order the first of those left is on what is left's front.
    """
    order = np.lexsort(-np.moveaxis(means, 2, 0)[::-1], axis=-1)
    here, rows = np.take_along_axis(means, order[..., None], axis=1), np.arange(len(means))
    losses, near, waiting = (np.full(order.shape, start) for start in (False, False, True))
    for _ in ("the front", "the front without it"):
        left = waiting.copy()
        while left.any():
            pick = left.argmax(axis=1)
            rival, others = here[rows, pick][:, None], np.arange(order.shape[1]) != pick[:, None]
            others &= left[rows, pick][:, None]  # where a draw has none left, nobody is compared
            losses |= others & fronts.beats(rival, here + margin)
            near |= others & fronts.beats(rival, here - margin)
            waiting[rows, pick] &= ~left[rows, pick]
            left[rows, pick] = False
            left &= ~fronts.beats(rival, here)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(losses, back, axis=1), np.take_along_axis(near, back, axis=1)


def front_probability(
    gains: Mapping[str, Array], noise: Noise | None = None, moved: Array | float = 0.0
) -> dict[str, float]:
    """Configuration -> how probable it is that its true mean is on the front.

    `noise`: where it is known from elsewhere; else that of the seeds. Without any, the front of the means is taken as
    certain. `moved` (DRAWS, N, k): what comes on top of it, such as other images.
    """
    if not gains:
        return {}
    noise = pooled(gains.values()) if noise is None else noise
    if not noise.freedom:
        noise = Noise(np.zeros((next(iter(gains.values())).shape[1],) * 2), 0)
    sides = ["max"] * len(noise.covariance)
    found = np.mean([fronts.non_dominated(each, sides) for each in draws(gains, noise) + moved], axis=0)
    return dict(zip(gains, map(float, found), strict=True))


def next_contender(
    found: Samples, noise: Noise | None = None, delta: float = DELTA, most: int = MOST_SEEDS
) -> str | None:
    """Whose next seed tells most about the front; None where it is decided, or every contender has `most` seeds.

    The contender is the one least decided; the seed is its own, or that of the rival who beats it most often, whichever
    has fewer.
    """
    gains = found.gains
    if len(gains) < 2:
        return None
    if noise is None:
        noise = pooled(gains.values())
        if noise.freedom < LEAST_FREEDOM and (first := _unmeasured(found, most)) is not None:
            return first
    if not noise.freedom:
        return None  # what could tell is under way
    means, margin = draws(gains, noise), INDIFFERENCE * np.sqrt(np.diag(noise.covariance))
    losses, near = contested(means, margin)
    # In doubt is who may be clearly beaten, and may yet be one that nobody replaces.
    doubt = np.minimum(losses.mean(axis=0), 1 - near.mean(axis=0))
    names = list(gains)
    for index in map(int, np.argsort(-doubt, kind="stable")):
        if doubt[index] <= delta:
            return None
        rival = int(beats(means, index, margin).mean(axis=0).argmax())
        pair = sorted({index, rival}, key=lambda i: (len(gains[names[i]]), i))
        free = [names[i] for i in pair if found.free(names[i], most)]
        if free:
            return free[0]
    return None


def _unmeasured(found: Samples, most: int) -> str | None:
    """Before the noise is known, the best get a second seed: theirs are the noises that matter."""
    values = [found.gains[name].mean(axis=0) for name in found.gains]
    ranks = dict(zip(found.gains, fronts.ranks(values, ["max"] * len(values[0])), strict=True))
    free = [name for name in found.gains if found.free(name, most)]
    return min(free, key=lambda name: (len(found.gains[name]), ranks[name]), default=None)
