"""Metrics against fixtures, against their definitions, and with classes that have no image."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from absld_search.core import metrics

# AutoAttack class accuracies of a published log (FAAL, PRN-18 from TRADES) with the numbers derived from them.
FAAL = [0.552, 0.692, 0.316, 0.288, 0.299, 0.363, 0.384, 0.488, 0.546, 0.582]

accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=30)
outcomes = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=60)


def test_published_fixture():
    assert np.mean(FAAL) == pytest.approx(0.4510)
    assert metrics.worst_class(FAAL) == 0.288
    assert metrics.nsd(FAAL) == pytest.approx(0.2941, abs=5e-5)
    assert metrics.lowest_mean(FAAL, 0.1) == pytest.approx(0.288)
    assert metrics.lowest_mean(FAAL, 0.2) == pytest.approx((0.288 + 0.299) / 2)


def test_the_class_on_the_boundary_counts_in_part():
    # 0.25 of 10 classes: two whole ones and half of the third.
    assert metrics.lowest_mean(FAAL, 0.25) == pytest.approx((0.288 + 0.299 + 0.5 * 0.316) / 2.5)


@given(accuracies)
def test_the_lowest_of_all_is_the_mean_and_the_lowest_few_the_worst(values):
    assert metrics.lowest_mean(values, 1) == pytest.approx(np.mean(values))
    assert metrics.lowest_mean(values, 1 / len(values)) == pytest.approx(min(values))


@given(accuracies, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_fraction_is_never_lower(values, one, other):
    low, high = sorted((one, other))
    assert metrics.lowest_mean(values, low) <= metrics.lowest_mean(values, high) + 1e-12


@given(accuracies, st.randoms())
def test_the_order_of_classes_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    for function in (metrics.nsd, metrics.worst_class, lambda a: metrics.lowest_mean(a, 0.3)):
        assert function(shuffled) == pytest.approx(function(values), nan_ok=True)


@given(accuracies)
def test_a_class_without_images_changes_nothing(values):
    for function in (metrics.nsd, metrics.worst_class, lambda a: metrics.lowest_mean(a, 0.3)):
        assert function([*values, math.nan]) == pytest.approx(function(values), nan_ok=True)


@given(st.floats(0.01, 1), st.integers(1, 20))
def test_equal_classes_are_fair(value, num_classes):
    assert metrics.nsd([value] * num_classes) == pytest.approx(0, abs=1e-12)


@given(accuracies, st.floats(0.001, 10))
def test_the_soft_minimum_lies_between_minimum_and_mean(values, temperature):
    found = metrics.soft_min(values, temperature)
    assert min(values) - 1e-9 <= found <= np.mean(values) + 1e-9
    assert metrics.soft_min(values, 2 * temperature) >= found - 1e-9


@given(accuracies)
def test_a_cold_soft_minimum_is_the_minimum_and_a_hot_one_the_mean(values):
    assert metrics.soft_min(values, 1e-6) == pytest.approx(min(values), abs=1e-5)
    assert metrics.soft_min(values, 1e6) == pytest.approx(np.mean(values), abs=1e-5)


@given(accuracies, st.integers(0, 29), st.floats(0, 1))
def test_no_objective_falls_when_a_class_gets_better(values, index, gain):
    index %= len(values)
    better = [*values]
    better[index] = min(1, better[index] + gain)
    for function in (metrics.worst_class, metrics.soft_min, lambda a: metrics.lowest_mean(a, 0.2)):
        assert function(better) >= function(values) - 1e-9


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(1, 10**6))
def test_shrinking_keeps_order_and_mean_side_and_fades_with_images(values, n):
    found = metrics.shrunken(values, n)
    mean = np.mean(values)
    assert ((found - mean) * (np.array(values) - mean) >= -1e-12).all()
    assert (np.abs(found - mean) <= np.abs(np.array(values) - mean) + 1e-12).all()
    if np.ptp(values) > 0.1:
        np.testing.assert_allclose(metrics.shrunken(values, 10**9), values, atol=1e-3)


def test_classes_that_differ_by_chance_only_shrink_to_their_mean():
    np.testing.assert_allclose(metrics.shrunken([0.48, 0.5, 0.52], 100), 0.5)


def test_the_two_divisors_of_the_nsd():
    assert metrics.nsd(FAAL, ddof=1) == pytest.approx(0.3100, abs=5e-5)
    assert metrics.nsd(FAAL, ddof=1) == pytest.approx(metrics.nsd(FAAL) * math.sqrt(10 / 9))
    assert math.isnan(metrics.nsd([0.5], ddof=1))


def test_rho_weighs_what_is_won_against_what_is_lost():
    assert metrics.rho(0.5, 0.3, 0.5, 0.3) == 0
    # A tenth of the average lost, half of the worst class won.
    assert metrics.rho(0.45, 0.3, 0.5, 0.2) == pytest.approx(0.5 - 0.1)
    assert math.isnan(metrics.rho(0.5, 0.3, 0.5, 0.0))


def test_many_classes_are_searched_on_their_worst_tenth():
    assert metrics.tail_objective(10) == "robust_cvar" in metrics.NAMES
    assert metrics.tail_objective(100) == "worst_tenth_robust_accuracy" in metrics.NAMES


def test_no_class_at_all_and_no_hit_at_all():
    assert math.isnan(metrics.worst_class([math.nan]))
    assert math.isnan(metrics.lowest_mean([], 0.1))
    assert math.isnan(metrics.nsd([0.0, 0.0]))  # neither fair nor unfair
    assert metrics.worst_class([0.0, 0.0]) == 0


@given(outcomes)
def test_class_accuracies_count_by_class(pairs):
    correct, labels = zip(*pairs, strict=True)
    accuracy, n = metrics.class_accuracies(correct, labels, 5)
    for index in range(5):
        of_class = [hit for hit, label in pairs if label == index]
        assert n[index] == len(of_class)
        assert accuracy[index] == pytest.approx(np.mean(of_class) if of_class else math.nan, nan_ok=True)


@given(outcomes, st.permutations(range(5)))
def test_renaming_the_classes_permutes_their_accuracies_and_keeps_the_summary(pairs, names):
    correct, labels = (np.array(column) for column in zip(*pairs, strict=True))
    renamed = np.array(names)[labels]
    before, after = (metrics.class_accuracies(correct, given, 5)[0] for given in (labels, renamed))
    np.testing.assert_array_equal(after[np.array(names)], before)
    summary = metrics.summary("robust", correct, labels, 5)
    assert metrics.summary("robust", correct, renamed, 5) == pytest.approx(summary, nan_ok=True)


def test_the_summary_names_what_it_measures():
    correct, labels = [True, True, True, False, True, False], [0, 0, 0, 1, 1, 2]
    found = metrics.summary("robust", correct, labels, 4)  # class accuracies 1, 1/2, 0 and one without images
    assert found == pytest.approx({
        "robust_accuracy": 4 / 6,  # over images, not over classes
        "worst_class_robust_accuracy": 0,
        "worst_tenth_robust_accuracy": 0,
        "shrunken_worst_class_robust_accuracy": metrics.shrunken([1, 0.5, 0], [3, 2, 1]).min(),
        "robust_cvar": 0,
        "robust_softmin": metrics.soft_min([1, 0.5, 0]),
        "robust_nsd": np.std([1, 0.5, 0]) / 0.5,
        "robust_nsd_sample": 1,
    })  # fmt: skip
    assert "worst_class_cw_accuracy" in metrics.summary("cw", correct, labels, 4)


def test_every_name_has_a_direction():
    for kind in metrics.KINDS:
        assert set(metrics.summary(kind, [True], [0], 1)) <= set(metrics.NAMES)
    assert metrics.NAMES["worst_class_robust_accuracy"] == metrics.NAMES["clean_accuracy"] == "max"
    assert {name for name, direction in metrics.NAMES.items() if direction == "min"} == {
        f"{kind}_nsd{end}" for kind in metrics.KINDS for end in ("", "_sample")
    }  # fmt: skip


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="kind"):
        metrics.summary("robst", [True], [0], 1)
    with pytest.raises(ValueError, match="labels"):
        metrics.class_accuracies([True], [3], 3)
    with pytest.raises(ValueError, match="labels"):
        metrics.class_accuracies([True], [-1], 3)
    with pytest.raises(ValueError, match=r"\(N,\)"):
        metrics.class_accuracies([True, False], [0], 3)
    with pytest.raises(ValueError, match="fraction"):
        metrics.lowest_mean([0.5], 0)
    with pytest.raises(ValueError, match="temperature"):
        metrics.soft_min([0.5], 0)
