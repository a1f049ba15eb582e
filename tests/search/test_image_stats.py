"""Statistics over images: the bias of the minimum, intervals that cover, McNemar by class, power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from absld_search.core import metrics
from absld_search.search import stats
from absld_search.search.stats.worst import expected_minimum
from benchmarks import statistics
from benchmarks.simulated import CONFIGS, PROFILES, SEEDS, correlation, verdicts

FAAL = PROFILES["faal"]


def within(share: float, expected: float, repetitions: int, errors: float = 3) -> bool:
    """Whether a simulated share lies within so many Monte-Carlo errors of what is expected."""
    return abs(share - expected) <= errors * math.sqrt(expected * (1 - expected) / repetitions)


def mean(accuracy: np.ndarray) -> np.ndarray:
    return accuracy.mean(axis=-1)


def drawn(rng: np.random.Generator, truth: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts (1, C * n) and labels of one training."""
    correct = np.arange(n) < rng.binomial(n, truth)[:, None]
    return correct.reshape(1, -1), np.repeat(np.arange(truth.size), n)


@pytest.mark.parametrize("n", [60, 200, 1000])
def test_the_debiased_worst_of_equal_classes_is_closer_than_the_minimum(n: int) -> None:
    accuracy = np.random.default_rng(n).binomial(n, 0.5, size=(400, 10)) / n
    naive, debiased = accuracy.min(axis=1) - 0.5, stats.debiased_worst(accuracy, np.full(10, n)) - 0.5
    assert abs(debiased.mean()) < 0.3 * abs(naive.mean())
    assert np.sqrt((debiased**2).mean()) < 0.7 * np.sqrt((naive**2).mean())
    assert naive.mean() == pytest.approx(stats.expected_worst(10, n, 0.5) - 0.5, abs=4 * naive.std() / 20)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12))
@settings(deadline=None, max_examples=50)
def test_debiasing_only_ever_raises_the_minimum_and_not_above_the_mean(hits: list[int]) -> None:
    accuracy, n = np.array(hits) / 50, np.full(len(hits), 50)
    assert accuracy.min() - 1e-9 <= float(stats.debiased_worst(accuracy, n)) <= accuracy.mean() + 1e-9


def test_with_many_images_nothing_is_left_to_correct() -> None:
    assert float(stats.debiased_worst(FAAL, np.full(10, 10**8))) == pytest.approx(FAAL.min(), abs=1e-4)


def test_the_expected_minimum_against_drawing() -> None:
    rng = np.random.default_rng(0)
    sd = np.linspace(0.01, 0.05, 10)
    found = (FAAL + sd * rng.standard_normal((200_000, 10))).min(axis=1)
    assert float(expected_minimum(FAAL, sd)) == pytest.approx(found.mean(), abs=4 * found.std() / math.sqrt(200_000))
    assert float(expected_minimum([0.3], [0.02])) == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize(("name", "n"), [("clear worst", 200), ("equal", 60), ("faal", 1000)])
def test_intervals_of_one_training_cover_the_truth(name: str, n: int) -> None:
    rng, truth, repetitions = np.random.default_rng(7), PROFILES[name], 300
    held = {"mean": 0, "worst": 0}
    for _ in range(repetitions):
        correct, labels = drawn(rng, truth, n)
        average = stats.over_images(correct, labels, mean, draws=500)
        worst = stats.worst_interval(stats.class_accuracies(correct, labels)[0], n, draws=200)
        held["mean"] += average.low <= truth.mean() <= average.high
        held["worst"] += worst.low <= truth.min() <= worst.high
    assert within(held["mean"] / repetitions, 0.95, repetitions, errors=3)
    assert 0.95 - 0.02 - 3 * math.sqrt(0.05 * 0.95 / repetitions) <= held["worst"] / repetitions


def test_resampling_keeps_classes_apart_and_images_together() -> None:
    rng = np.random.default_rng(1)
    one = rng.random(40) < 0.5
    labels = np.repeat([0, 1], 20)
    found = stats.resampled(np.stack([one, one, ~one]), labels, draws=300)
    assert found.shape == (300, 3, 2)
    np.testing.assert_allclose(found[:, 0], found[:, 1])  # the same images for all trainings
    np.testing.assert_allclose(found[:, 0] + found[:, 2], 1)
    expected = [one[labels == c].mean() for c in (0, 1)]
    np.testing.assert_allclose(found[:, 0].mean(axis=0), expected, atol=0.03)


def test_an_interval_over_images_agrees_with_the_binomial_one() -> None:
    correct, labels = np.arange(1000)[None] < 300, np.zeros(1000, int)
    found = stats.over_images(correct, labels, mean, draws=4000)
    exact = binomtest(300, 1000).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.003)
    sure = stats.over_images(np.ones((2, 10)), np.zeros(10, int), mean)
    assert (sure.estimate, sure.high) == (1, 1) and sure.low < binomtest(10, 10).proportion_ci(method="wilson").low


def test_a_worst_class_without_a_hit_is_no_certainty_even_where_all_seeds_agree() -> None:
    labels = np.repeat(np.arange(10), 60)
    for accuracy, images in ((np.linspace(0, 0.9, 10), 60), (np.zeros(10), 600)):  # of the classes that may be worst
        correct = np.tile(np.arange(60) < 60 * accuracy[:, None], (8, 1, 1)).reshape(8, -1)
        least, most = (binomtest(0, n).proportion_ci(method="exact").high for n in (images, 60))
        for found in (stats.arm_worst(correct, labels), stats.worst_interval(accuracy, 60)):
            assert found.low == 0 <= found.estimate < found.high and 0.5 * least < found.high <= most
    sure = stats.arm_worst(np.ones((8, 600)), labels)
    assert sure.low < sure.estimate == sure.high == 1


@pytest.mark.parametrize("lowest", [0.01, 0.05])
def test_intervals_of_a_class_that_is_hardly_ever_right_cover_the_truth(lowest: float) -> None:
    rng, truth, repetitions = np.random.default_rng(3), np.array([lowest, *FAAL[1:]]), 100
    labels, seeds, one = np.repeat(np.arange(10), 60), 0, 0
    for _ in range(repetitions):
        correct = verdicts(rng, np.broadcast_to(truth, (1, 6, 10)), 60)[0].reshape(6, -1)
        found = stats.arm_worst(correct, labels, draws=200)
        seeds += found.low <= lowest <= found.high
        found = stats.worst_interval(stats.class_accuracies(correct, labels)[0], 60, draws=200)
        one += found.low <= lowest <= found.high
    assert min(seeds, one) / repetitions >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_same_input_same_interval_and_bad_input_is_refused() -> None:
    correct, labels = drawn(np.random.default_rng(0), FAAL, 60)
    assert stats.over_images(correct, labels, mean) == stats.over_images(correct, labels, mean)
    assert stats.arm_worst(correct, labels) == stats.worst_interval(stats.class_accuracies(correct, labels)[0], 60)
    with pytest.raises(ValueError, match=r"\(S, N\)"):
        stats.class_accuracies(correct[0], labels)
    with pytest.raises(ValueError, match="every class"):
        stats.class_accuracies(correct[:, :60], np.full(60, 3))


def test_swapping_the_arms_turns_the_difference_around() -> None:
    rng = np.random.default_rng(3)
    one, other = (verdicts(rng, np.broadcast_to(FAAL, (1, 4, 10)), 40)[0].reshape(4, -1) for _ in range(2))
    labels = np.repeat(np.arange(10), 40)
    (there,), (back,) = stats.over_both(one, other, labels, [mean]), stats.over_both(other, one, labels, [mean])
    assert there.estimate == pytest.approx(-back.estimate) and there.high - there.low == pytest.approx(
        back.high - back.low, rel=0.2
    )
    assert there.estimate == pytest.approx(one.mean() - other.mean())
    assert stats.over_both(one[:1], other[:1], labels, [mean])[0].high == math.inf  # one seed has no spread


@given(st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_mcnemar_is_the_exact_binomial_test(better: int, worse: int) -> None:
    n = 100
    arm, first = np.zeros((1, n), bool), np.zeros((1, n), bool)
    arm[0, :better] = True
    first[0, better : better + worse] = True
    (found,) = stats.mcnemar(arm, first, np.zeros(n, int))
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert found.p == pytest.approx(expected) and (found.better, found.worse) == (better, worse)
    assert found.difference == pytest.approx((better - worse) / n)


def test_mcnemar_counts_an_image_once_however_many_seeds_saw_it() -> None:
    rng = np.random.default_rng(0)
    arm, first, labels = rng.random((1, 90)) < 0.6, rng.random((1, 90)) < 0.5, np.repeat(np.arange(3), 30)
    once, often = stats.mcnemar(arm, first, labels), stats.mcnemar(arm.repeat(8, 0), first.repeat(8, 0), labels)
    assert once == often
    assert [test.holm_p for test in once] == pytest.approx(list(stats.holm([test.p for test in once])))


def test_mcnemar_rejects_no_more_often_than_it_may() -> None:
    rng, labels, rejected = np.random.default_rng(5), np.repeat(np.arange(10), 60), 0
    for _ in range(300):
        found = verdicts(rng, np.broadcast_to(FAAL, (2, 6, 10)), 60).reshape(2, 6, -1)
        rejected += any(test.holm_p < stats.ALPHA for test in stats.mcnemar(found[0], found[1], labels))
    assert rejected / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("n", [6, 8, 10])
def test_seeds_of_one_setting_are_told_apart_as_often_as_the_test_may(n: int) -> None:
    rng, repetitions = np.random.default_rng(n), 400
    size = 2 * math.floor(0.05 * 2**n / 2) / 2**n
    rejected = sum(stats.paired(rng.standard_normal(n)).p <= 0.05 for _ in range(repetitions))
    assert within(rejected / repetitions, size, repetitions)


def test_settings_that_suit_other_images_are_no_claim_about_new_ones() -> None:
    """The seeds' test alone sees every difference on these images; seeds and images together do not."""
    rng, labels, repetitions = np.random.default_rng(2), np.repeat(np.arange(10), 60), 120
    seeds_say, both_say = 0, 0
    for _ in range(repetitions):
        found = verdicts(rng, np.broadcast_to(FAAL, (2, 8, 10)), 60).reshape(2, 8, -1)
        difference = (found[0].astype(float) - found[1]).mean(axis=1)
        seeds_say += stats.paired(difference).p <= 0.05
        (both,) = stats.over_both(found[0], found[1], labels, [mean], draws=200)
        both_say += both.low > 0 or both.high < 0
    assert seeds_say / repetitions > 0.2
    assert both_say / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_power() -> None:
    assert stats.seeds_to_decide(0.0) == stats.seeds_needed(1) == 6
    assert stats.seeds_to_decide(0.02, 0.01) > stats.seeds_to_decide(0.01, 0.01) > 6
    assert stats.seeds_to_decide(0.02, 0.01, comparisons=3) > stats.seeds_to_decide(0.02, 0.01)
    assert stats.images_to_decide(0.166) > 2 * stats.images_to_decide(0.08)
    with pytest.raises(ValueError, match="difference"):
        stats.images_to_decide(0.1, 0)
    with pytest.raises(ValueError, match="sd"):
        stats.seeds_to_decide(-1)


def test_as_many_seeds_as_power_asks_for_do_decide() -> None:
    n = stats.seeds_to_decide(0.01, 0.01)
    rng = np.random.default_rng(0)
    decided = np.mean([stats.paired(rng.normal(0.01, 0.01, n)).p <= 0.05 for _ in range(400)])
    assert abs(decided - 0.8) < 0.08  # the exact test's power, and 3 Monte-Carlo errors


def test_as_many_images_as_power_asks_for_do_decide() -> None:
    n, d, rng = stats.images_to_decide(0.2, 0.05), 0.2, np.random.default_rng(0)
    counts = rng.multinomial(n, [(d + 0.05) / 2, (d - 0.05) / 2, 1 - d], size=400)
    decided = np.mean([stats.classes.two_sided(int(b), int(w)) <= 0.05 for b, w, _ in counts])
    assert abs(decided - 0.8) < 0.08


def test_simulated_trainings_differ_as_often_as_they_should() -> None:
    found = verdicts(np.random.default_rng(0), np.broadcast_to(FAAL, (2, 2, 10)), 4000)
    assert (found[0, 0] != found[1, 0]).mean() == pytest.approx(CONFIGS, abs=0.01)
    assert (found[0, 0] != found[0, 1]).mean() == pytest.approx(SEEDS, abs=0.01)
    np.testing.assert_allclose(found.mean(axis=(0, 1, 3)), FAAL, atol=0.03)
    assert correlation(0.0, FAAL) == pytest.approx(1) and correlation(0.9, FAAL) == pytest.approx(0, abs=1e-6)


def test_the_tail_sees_a_point_that_the_minimum_misses() -> None:
    rng, repetitions, right = np.random.default_rng(0), 300, {"min": 0, "cvar": 0, "soft": 0}
    truth = np.stack([PROFILES["fair"]] * 2)[:, None]
    truth[0, :, :3] += 0.005
    truth[1, :, :3] -= 0.005
    for _ in range(repetitions):
        better, worse = verdicts(rng, truth, 1000)[:, 0].mean(axis=-1)
        right["min"] += better.min() > worse.min()
        right["cvar"] += metrics.lowest_mean(better, 0.2) > metrics.lowest_mean(worse, 0.2)
        right["soft"] += metrics.soft_min(better) > metrics.soft_min(worse)
    assert right["cvar"] / repetitions > 0.85 - 3 * math.sqrt(0.85 * 0.15 / repetitions)
    assert right["cvar"] > right["min"] and right["soft"] > right["min"]


def test_the_benchmark_runs_and_writes(tmp_path, capsys: pytest.CaptureFixture) -> None:
    assert statistics.main(["--out", str(tmp_path), "--repetitions", "8", "--only", "right-order"]) == 0
    assert "CVaR-20 %" in capsys.readouterr().out
    assert (tmp_path / "statistics-right-order.json").exists()
