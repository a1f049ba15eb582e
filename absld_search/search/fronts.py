"""Pareto fronts: which points no other beats, the balanced one among them, and how much the front covers.

Values are (N, k): one row per point, one column per objective; directions are "max" or "min", one per
objective.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def non_dominated(values: Any, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Mask (N,) of the points on the front.

    Equal points do not dominate each other, so ties stay. A row with nan or inf is never on the front and
    beats nobody.
    """
    gains = _gains(values, directions)
    front = np.array(np.isfinite(gains).all(axis=1), dtype=np.bool_, ndmin=1)
    candidates = gains[front]
    for index in np.flatnonzero(front):
        at_least = (candidates >= gains[index]).all(axis=1)
        better = (candidates > gains[index]).any(axis=1)
        front[index] = not (at_least & better).any()
    return front


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
    """Exact area between the front and `reference` (2,); 0 where no point is better than the reference.

    Raises: ValueError for another number of objectives.
    """
    if len(directions) != 2:
        raise ValueError(f"hypervolume is implemented for 2 objectives, got {len(directions)}")
    gains = _gains(values, directions) - _gains([reference], directions)
    gains = gains[np.isfinite(gains).all(axis=1) & (gains > 0).all(axis=1)]
    first, second = gains[np.argsort(-gains[:, 0])].T
    # From the largest first objective downwards, a point adds the strip above the highest second objective so
    # far.
    height = np.maximum.accumulate(np.concatenate([[0.0], second]))
    return float(first @ np.diff(height))


def _gains(values: Any, directions: Sequence[str]) -> NDArray[np.float64]:
    """The values (N, k) with the objectives to minimise negated: more is better everywhere."""
    unknown = sorted(set(directions) - {"max", "min"})
    if unknown or not directions:
        raise ValueError(f"directions must be 'max' or 'min', one per objective; got {list(directions)}")
    gains = np.asarray(values, dtype=float)
    gains = gains.reshape(0, len(directions)) if gains.size == 0 else gains
    if gains.ndim != 2 or gains.shape[1] != len(directions):
        raise ValueError(f"values of shape {gains.shape} do not match {len(directions)} directions")
    return gains * np.array([1.0 if direction == "max" else -1.0 for direction in directions])
