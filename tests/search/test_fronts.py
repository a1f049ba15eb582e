"""Fronts, knee and hypervolume against brute force."""

import math

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from absld_search.search.fronts import Front, hypervolume, knee, net_order, non_dominated, ranks

# Few distinct values, so that ties and equal points are common.
small = st.integers(0, 5).map(float)
odd = st.one_of(small, st.sampled_from([math.nan, math.inf, -math.inf]))
directions = st.lists(st.sampled_from(["max", "min"]), min_size=1, max_size=3)


@st.composite
def points(draw, values=small, count=2, min_size=0):
    sides = draw(st.lists(st.sampled_from(["max", "min"]), min_size=count, max_size=count))
    return draw(st.lists(st.tuples(*[values] * count), min_size=min_size, max_size=12)), sides


def beats(one, other, sides):
    signed = [(a - b) * (1 if side == "max" else -1) for a, b, side in zip(one, other, sides, strict=True)]
    return all(difference >= 0 for difference in signed) and any(difference > 0 for difference in signed)


def brute_front(values, sides):
    finite = [all(map(math.isfinite, row)) for row in values]
    rivals = [row for row, fine in zip(values, finite, strict=True) if fine]
    return [fine and not any(beats(r, row, sides) for r in rivals) for row, fine in zip(values, finite, strict=True)]


@given(st.integers(1, 3).flatmap(lambda k: points(odd, k)))
def test_the_front_is_what_nobody_beats(drawn):
    values, sides = drawn
    assert non_dominated(values, sides).tolist() == brute_front(values, sides)


@given(points(min_size=1))
def test_ties_stay_and_a_beaten_point_changes_nothing(drawn):
    values, sides = drawn
    front = non_dominated(values, sides)
    twice = non_dominated(values + values, sides)
    assert twice.tolist() == [*front, *front]
    worse = tuple(v - 1 if side == "max" else v + 1 for v, side in zip(values[0], sides, strict=True))
    assert non_dominated([*values, worse], sides).tolist() == [*front, False]


@given(points(min_size=1), st.randoms())
def test_the_front_goes_with_the_points(drawn, random):
    values, sides = drawn
    order = random.sample(range(len(values)), len(values))
    front = non_dominated(values, sides)
    assert non_dominated([values[i] for i in order], sides).tolist() == front[order].tolist()


@given(points(odd, min_size=1))
def test_the_knee_is_on_the_front(drawn):
    values, sides = drawn
    front = brute_front(values, sides)
    if any(front):
        assert front[knee(values, sides)]
    else:
        with pytest.raises(ValueError, match="no point"):
            knee(values, sides)


def test_the_knee_is_the_balanced_point():
    values = [(0.0, 1.0), (0.7, 0.8), (1.0, 0.0), (0.5, 0.5)]
    assert knee(values, ["max", "max"]) == 1
    assert knee([(-a, b) for a, b in values], ["min", "max"]) == 1


def test_the_knee_does_not_depend_on_units():
    values = np.array([(0.10, 0.500), (0.25, 0.498), (0.30, 0.400)])
    assert (
        knee(values, ["max", "max"]) == knee(values * [100, 1], ["max", "max"]) == knee(values + 3, ["max", "max"]) == 1
    )


def test_ties_of_the_knee_go_to_the_first_objective_and_then_to_the_lower_index():
    assert knee([(0.0, 1.0), (1.0, 0.0)], ["max", "max"]) == 1
    assert knee([(0.0, 1.0), (1.0, 0.0)], ["min", "min"]) == 0
    assert knee([(0.2, 0.2), (0.5, 0.5), (0.5, 0.5)], ["max", "max"]) == 1
    assert knee([(0.3, 0.7)], ["max", "max"]) == 0
    # The inner two are equally far but for the last bit of 0.4 - 0.3 and 0.5 - 0.3.
    assert knee([(0.3, 3), (0.4, 2), (0.5, 1), (0.3 + 0.1 * 3, 0)], ["max", "max"]) == 2


@given(points(odd), st.tuples(small, small))
def test_hypervolume_counts_the_covered_cells(drawn, reference):
    values, sides = drawn
    sign = np.array([1 if side == "max" else -1 for side in sides])
    gains = (np.array([v for v in values if all(map(math.isfinite, v))]).reshape(-1, 2) - reference) * sign
    cells = [(i + 0.5, j + 0.5) for i in range(6) for j in range(6)]  # all values are whole numbers from 0 to 5
    covered = sum(any(x < a and y < b for a, b in gains) for x, y in cells)
    assert hypervolume(values, sides, reference) == pytest.approx(covered)


@given(points(min_size=1), st.randoms())
def test_hypervolume_does_not_depend_on_order_and_grows_with_points(drawn, random):
    values, sides = drawn
    reference = (2.0, 2.0)
    volume = hypervolume(values, sides, reference)
    assert hypervolume(random.sample(values, len(values)), sides, reference) == pytest.approx(volume)
    assert hypervolume(values[1:], sides, reference) <= volume + 1e-12


def test_hypervolume_of_nothing_and_of_three_objectives():
    assert hypervolume([], ["max", "max"], (0, 0)) == 0
    assert hypervolume([(0.5, 0.25)], ["max", "max"], (0, 0)) == 0.125
    assert hypervolume([(0.5, 0.25)], ["max", "max"], (0.5, 0)) == 0
    assert hypervolume([(1, 2, 3), (3, 2, 1)], ["max", "max", "max"], (0, 0, 0)) == 6 + 6 - 2
    assert hypervolume([(3,), (2,)], ["min"], (4,)) == 2


def test_directions_are_checked():
    with pytest.raises(ValueError, match="'max' or 'min'"):
        non_dominated([(1, 2)], ["max", "maximize"])
    with pytest.raises(ValueError, match="shape"):
        non_dominated([(1, 2, 3)], ["max", "max"])
    assert non_dominated([], ["max", "max"]).shape == (0,)


def random_set(seed: int) -> tuple[np.ndarray, list[str]]:
    """None, one or many points in 1 to 4 objectives; every other set has few distinct values, so many duplicates."""
    draw = np.random.default_rng(seed)
    count, width = int(draw.integers(0, 2 if seed % 10 == 0 else 25)), int(draw.integers(1, 5))
    values = draw.uniform(-1, 1, (count, width)) if seed % 2 else draw.integers(0, 4, (count, width)) / 4
    return values, draw.choice(["max", "min"], width).tolist()


def test_front_and_hypervolume_agree_with_moocore_on_a_thousand_sets() -> None:
    sizes = set()
    for seed in range(1000):
        values, sides = random_set(seed)
        sizes.add(min(len(values), 2))
        maximise = [side == "max" for side in sides]
        reference = np.where(maximise, -0.25, 0.75)
        found = hypervolume(values, sides, reference)
        if not len(values):  # moocore takes no empty set
            assert found == 0 and non_dominated(values, sides).shape == (0,)
            continue
        assert found == pytest.approx(moocore.hypervolume(values, ref=reference, maximise=maximise), abs=1e-12)
        expected = {tuple(row) for row in values[moocore.is_nondominated(values, maximise=maximise)]}
        on_front = non_dominated(values, sides)
        assert {tuple(row) for row in values[on_front]} == expected
        assert not [row for row in values[~on_front] if tuple(row) in expected], "all equal points, or none"
    assert sizes == {0, 1, 2}


@given(st.integers(1, 3).flatmap(lambda k: points(odd, k)))
def test_a_front_that_grows_is_the_front_of_all(drawn):
    values, sides = drawn
    grown = Front(sides)
    for count, point in enumerate(values, start=1):
        is_member = grown.add(point)
        assert is_member == (count - 1 in grown.members)
        assert grown.members == np.flatnonzero(non_dominated(values[:count], sides)).tolist()


@given(st.integers(1, 3).flatmap(lambda k: points(odd, k)))
def test_ranks_peel_fronts(drawn):
    values, sides = drawn
    found = ranks(values, sides)
    finite = [all(map(math.isfinite, row)) for row in values]
    left = [row if fine else (math.nan,) * len(sides) for row, fine in zip(values, finite, strict=True)]
    for rank in range(int(found.max(initial=-1)) + 1):
        front = non_dominated(left, sides)
        if front.any():
            assert np.flatnonzero(front).tolist() == np.flatnonzero(found == rank).tolist()
        else:
            assert [i for i, fine in enumerate(finite) if not fine] == np.flatnonzero(found == rank).tolist()
        left = [(math.nan,) * len(sides) if on else row for row, on in zip(left, front, strict=True)]


def test_the_net_takes_the_corners_before_their_neighbours() -> None:
    line = [(x, 1 - x) for x in (0.0, 0.1, 0.45, 0.9, 1.0)]
    assert net_order(line, ["max", "max"]) == [4, 0, 2, 1, 3]
    assert net_order([(1, 1), (1, 1)], ["max", "min"]) == [0, 1] and net_order([], ["max"]) == []
    scaled = [(1000 * a, b) for a, b in line]
    assert net_order(scaled, ["max", "max"]) == net_order(line, ["max", "max"]), "units do not matter"


@given(points(min_size=1))
def test_the_net_is_farthest_first(drawn):
    values, sides = drawn
    order = net_order(values, sides)
    assert sorted(order) == list(range(len(values)))
    for first in range(len(values) + 1):
        part = net_order(values, sides, first)
        assert part[:first] == order[:first] and sorted(part) == sorted(order)
    array = np.array(values) / np.where(np.std(values, axis=0) > 0, np.std(values, axis=0), 1)
    gaps = []
    for count in range(1, len(order)):
        taken, rest = array[order[:count]], array[order[count:]]
        distance = np.linalg.norm(rest[:, None] - taken[None], axis=-1).min(axis=1)
        assert distance[0] == pytest.approx(distance.max())
        gaps.append(distance[0])
    assert all(later <= before + 1e-9 for before, later in zip(gaps, gaps[1:], strict=False))
