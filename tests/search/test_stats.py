"""Few-seed statistics against enumeration by hand and published values."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from absld_search.search.stats import expected_worst, floor, holm, paired, seeds_needed

# Differences of accuracies come in steps of one image, so equal and opposite ones are common.
differences = st.lists(st.integers(-6, 6).map(lambda images: images / 60), min_size=1, max_size=9)
p_values = st.lists(st.floats(0, 1), max_size=8)


def enumerated_p(values):
    """Share of the 2^n sign patterns whose sum is at least as far from 0: in whole images, so without rounding."""
    images = [round(60 * value) for value in values]
    sums = [
        sum(s * v for s, v in zip(signs, images, strict=True))
        for signs in itertools.product((1, -1), repeat=len(images))
    ]
    return np.mean([abs(total) >= abs(sum(images)) for total in sums])


@given(differences)
@settings(deadline=None)
def test_p_is_the_share_of_sign_patterns(values):
    assert paired(values).p == pytest.approx(enumerated_p(values))


@given(differences)
@settings(deadline=None)
def test_the_interval_is_a_number_and_lies_in_the_range(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired(values)
    assert found.mean == pytest.approx(np.mean(values)) and found.n == len(values)
    assert not math.isnan(found.low) and not math.isnan(found.high) and 0 < found.p <= 1
    if len(values) >= seeds_needed(1):
        assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    else:
        assert (found.low, found.high) == (-math.inf, math.inf)


@given(differences)
@settings(deadline=None)
def test_interval_and_test_say_the_same(values):
    found = paired(values)
    assert (found.low > 0 or found.high < 0) == (found.p <= 0.05)


@given(st.lists(st.integers(-20, 20).map(float), min_size=6, max_size=9), st.floats(-25, 25))
@settings(deadline=None)
def test_the_interval_holds_the_differences_that_are_not_rejected(values, shift):
    found = paired(values)
    inside = found.low <= shift <= found.high
    if min(abs(shift - found.low), abs(shift - found.high)) > 1e-9:
        assert inside == (paired([value - shift for value in values]).p > 0.05)


@given(differences)
@settings(deadline=None)
def test_swapping_the_arms_turns_the_answer_around(values):
    one, other = paired(values), paired([-value for value in values])
    assert other.mean == pytest.approx(-one.mean) and other.p == pytest.approx(one.p)


def test_equal_differences_give_that_value():
    assert paired([0.1] * 8)[:3] == pytest.approx((0.1, 0.1, 0.1))
    # Equal but for rounding: 0.3 - 0.2 and 0.5 - 0.4 differ in the last bit.
    assert paired([0.3 - 0.2, 0.5 - 0.4, 0.1] * 2).low == pytest.approx(0.1)
    assert paired([0.0] * 8) == (0, 0, 0, 1, 8)


def test_one_pair_decides_nothing():
    assert paired([0.4]) == (0.4, -math.inf, math.inf, 1, 1)


def test_the_last_bit_of_a_difference_does_not_move_the_interval():
    images = np.array([-6, -4, -5, -7, -5, -6, -4, -5])
    one, other = paired(images / 480), paired((images + 288) / 480 - 288 / 480)
    assert one[:4] == pytest.approx(other[:4], abs=1e-9)


def test_the_same_data_give_the_same_interval():
    values = np.random.default_rng(3).normal(0.1, 0.2, 8)
    assert paired(values) == paired(values)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [paired(rng.normal(0.3, 1, 10)) for _ in range(200)]
    covered = np.mean([one.low <= 0.3 <= one.high for one in found])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.05 * 0.95 / 200)


def test_many_pairs_are_sampled():
    values = np.random.default_rng(1).normal(1.0, 1.0, 40)
    assert paired(values).p < 1e-3


@pytest.mark.parametrize("bad", [[], [math.nan], [0.1, math.inf], [[0.1, 0.2]]])
def test_differences_must_be_numbers(bad):
    with pytest.raises(ValueError, match="finite"):
        paired(bad)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).tolist() == []
    for bad in ([-0.1], [1.5], [math.nan]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            holm(bad)


@given(p_values)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values):
    adjusted = holm(values)
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= min(1, p * len(values)) + 1e-12
    order = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


@given(p_values.filter(bool), st.data())
def test_holm_is_monotone_in_each_p(values, data):
    index = data.draw(st.integers(0, len(values) - 1))
    raised = values[:index] + [data.draw(st.floats(values[index], 1))] + values[index + 1 :]
    assert (holm(raised) >= holm(values) - 1e-12).all()


def test_seeds_needed():
    assert [seeds_needed(comparisons) for comparisons in range(1, 8)] == [6, 7, 7, 8, 8, 8, 9]


@given(st.integers(1, 50), st.floats(0.001, 0.5))
def test_one_seed_fewer_cannot_decide(comparisons, alpha):
    n = seeds_needed(comparisons, alpha)
    assert floor(n, comparisons) < alpha <= floor(n - 1, comparisons)


@given(st.integers(1, 10), st.integers(1, 5))
@settings(deadline=None)
def test_the_floor_is_reached_by_equal_signs(n, comparisons):
    p = paired(np.linspace(0.1, 0.2, n)).p
    assert holm([p] + [1.0] * (comparisons - 1))[0] == pytest.approx(floor(n, comparisons))


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="comparisons"):
        floor(8, 0)
    with pytest.raises(ValueError, match="alpha"):
        seeds_needed(1, 0)


def test_the_minimum_over_equal_classes_is_biased_low():
    assert expected_worst(10, 1000, 0.5) == pytest.approx(0.476, abs=1e-3)
    assert expected_worst(10, 100, 0.5) == pytest.approx(0.423, abs=1e-3)
    assert expected_worst(100, 100, 0.3) == pytest.approx(0.190, abs=1e-3)
    assert expected_worst(1, 50, 0.3) == pytest.approx(0.3)
    assert expected_worst(10, 100, 0.0) == 0 and expected_worst(10, 100, 1.0) == 1
