"""Pareto fronts: which points no other beats, the balanced one among them, and how much the front covers.

Values are (N, k): one row per point, one column per objective; directions are "max" or "min", one per
objective.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


def non_dominated(values: Any, directions: Sequence[str]) -> Mask:
    """Mask (N,) of the points on the front.

    Equal points do not dominate each other, so ties stay. A row with nan or inf is never on the front and
    beats nobody.
    """
    gains = _gains(values, directions)
    mask = np.array(np.isfinite(gains).all(axis=1), dtype=np.bool_, ndmin=1)
    mask[mask] = _undominated(gains[mask])
    return mask


class Front:
    """A front that grows: a new point is compared with the front alone, not with everything that ever came.

    `members` are the indices of the points on it, counted in the order of `add`; the same as `non_dominated` of
    all of them at once.
    """

    def __init__(self, directions: Sequence[str]) -> None:
        self.directions, self.count = tuple(directions), 0
        self.members: list[int] = []
        self._gains = np.empty((0, len(directions)))

    def add(self, point: Sequence[float]) -> bool:
        """Whether the point (k,) is on the front now; what it beats leaves."""
        (gain,), index = _gains([point], self.directions), self.count
        self.count += 1
        if not np.isfinite(gain).all() or beats(self._gains, gain).any():
            return False
        stay = ~beats(gain[None], self._gains)
        self.members = [*(member for member, kept in zip(self.members, stay, strict=True) if kept), index]
        self._gains = np.vstack([self._gains[stay], gain])
        return True


def ranks(values: Any, directions: Sequence[str]) -> NDArray[np.int64]:
    """Non-dominated rank (N,) of each point: 0 on the front, 1 on the front without those, and so on.

    Rows with nan or inf share the rank behind all others (Deb et al., NSGA-II, IEEE TEC 2002, for the ranks).
    """
    gains = _gains(values, directions)
    found = np.zeros(len(gains), dtype=np.int64)
    finite = np.flatnonzero(np.isfinite(gains).all(axis=1))
    dominates = beats(gains[finite, None], gains[None, finite])
    by, left, rank = (
        dominates.sum(axis=0),
        np.ones(len(finite), dtype=np.bool_),
        0,
    )  # by: how many of those left beat each
    while left.any():
        front = left & (by == 0)
        found[finite[front]] = rank
        by, left, rank = by - dominates[front].sum(axis=0), left & ~front, rank + 1
    found[~np.isfinite(gains).all(axis=1)] = rank
    return found


def net_order(values: Any, directions: Sequence[str], first: int | None = None) -> list[int]:
    """Indices of the points so that every beginning of the list covers the set as evenly as it can.

    First the best in the first objective, then always the point farthest from those taken, in objectives scaled to
    unit spread: a greedy epsilon-net (Salinas et al., arXiv:2106.12639, order a front this way to halve it). Ties go to
    the lower index. All values must be finite. `first`: how many must be in this order; the others follow in theirs.
    """
    gains = _gains(values, directions)
    if len(gains) < 2:
        return list(range(len(gains)))
    spread = gains.std(axis=0)
    scaled = gains / np.where(spread > 0, spread, 1)
    order = [int(np.argmax(scaled[:, 0]))]
    distance = np.linalg.norm(scaled - scaled[order[0]], axis=1)
    while len(order) < (len(gains) if first is None else min(first, len(gains))):
        distance[order[-1]] = -1  # taken
        order.append(int(np.argmax(np.round(distance, 12))))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
    taken = set(order)
    return [*order, *(index for index in range(len(gains)) if index not in taken)]


def knee(values: Any, directions: Sequence[str]) -> int:
    """Index of the front's point nearest to the ideal corner, each objective scaled to [0, 1] over the front.

    Ties go to the better first objective, then to the lower index. Raises: ValueError where no row is finite.
    """
    gains = _gains(values, directions)
    members = np.flatnonzero(non_dominated(values, directions))
    if not members.size:
        raise ValueError("no point has finite values in every objective, so there is no front to choose from")
    front = gains[members]
    extent = np.ptp(front, axis=0)
    # An objective in which the whole front agrees decides nothing.
    lost = (front.max(axis=0) - front) / np.where(extent > 0, extent, 1)
    # Rounded, so that a difference in the last bit is a tie and goes by the rule above.
    distance = np.round(np.linalg.norm(lost, axis=1), 12)
    return int(members[np.lexsort((members, -front[:, 0], distance))[0]])


def hypervolume(values: Any, directions: Sequence[str], reference: Sequence[float]) -> float:
    """Exact volume between the front and `reference` (k,); 0 where no point is better than the reference.

    One or two objectives cost a sort. From three on it is cut into slices along the last objective, which costs
    O(N^(k-1)): right for the fronts of a study, not for thousands of points in many objectives.
    """
    gains = _gains(values, directions) - _gains([reference], directions)
    gains = gains[np.isfinite(gains).all(axis=1) & (gains > 0).all(axis=1)]
    return _volume(gains[_undominated(gains)]) if len(gains) else 0.0


def _volume(gains: Array) -> float:
    """The volume that points (N, k), all above 0, span with the origin."""
    if gains.shape[1] == 1:
        return float(gains.max())
    if gains.shape[1] == 2:
        first, second = gains[np.argsort(-gains[:, 0], kind="stable")].T
        # From the largest first objective downwards, a point adds the strip above the highest second objective so far.
        height = np.maximum.accumulate(np.concatenate([[0.0], second]))
        return float(first @ np.diff(height))
    levels = np.unique(gains[:, -1])
    volume = 0.0
    for low, high in zip([0.0, *levels[:-1]], levels, strict=True):
        slice_ = gains[gains[:, -1] >= high, :-1]
        volume += (high - low) * _volume(slice_[_undominated(slice_)])
    return float(volume)


def _undominated(gains: Array) -> Mask:
    """Mask (N,) of the finite points (N, k) that no other beats; more is better everywhere.

    In descending lexicographic order who beats a point stands before it, so the first of those left is on the front,
    and the cost is the front's size times N; two objectives cost the sort alone.
    """
    mask, left = np.zeros(len(gains), dtype=np.bool_), np.lexsort(-gains.T[::-1])
    if gains.shape[1] == 2 and left.size:
        mask[left] = _steps(*gains[left].T)
        return mask
    while left.size:
        mask[left[0]] = True
        left = left[1:][~beats(gains[left[0]], gains[left[1:]])]
    return mask


def _steps(first: Array, second: Array) -> Mask:
    """Which of points, the largest first objective first, ties by the second, reach higher in the second than all
    before them, or equal one that does."""
    highest = np.maximum.accumulate(np.concatenate([[-np.inf], second[:-1]]))
    leads = second > highest
    # Of equal points the first alone leads; each of the others stands behind the last that led.
    leader = np.maximum.accumulate(np.where(leads, np.arange(len(leads)), 0))
    return (first == first[leader]) & (second == second[leader])


def beats(ones: Array, others: Array) -> Mask:
    """Whether each of `ones` beats `others`, row by row, where either may be a single row. An objective at a time: to
    reduce over so short an axis would cost several times as much."""
    shape = np.broadcast_shapes(ones.shape[:-1], others.shape[:-1])
    no_worse, better = np.ones(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for objective in range(ones.shape[-1]):
        one, other = ones[..., objective], others[..., objective]
        no_worse &= one >= other
        better |= one > other
    return no_worse & better


def _gains(values: Any, directions: Sequence[str]) -> Array:
    """The values (N, k) with the objectives to minimise negated: more is better everywhere."""
    unknown = sorted(set(directions) - {"max", "min"})
    if unknown or not directions:
        raise ValueError(f"directions must be 'max' or 'min', one per objective; got {list(directions)}")
    gains = np.asarray(values, dtype=float)
    gains = gains.reshape(0, len(directions)) if gains.size == 0 else gains
    if gains.ndim != 2 or gains.shape[1] != len(directions):
        raise ValueError(f"values of shape {gains.shape} do not match {len(directions)} directions")
    return gains * signs(directions)


def signs(directions: Iterable[str]) -> NDArray[np.float64]:
    """(m,): what makes more of every objective better; 1 for "max", -1 for "min"."""
    return np.array([1.0 if direction == "max" else -1.0 for direction in directions])
