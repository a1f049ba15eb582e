"""What stands behind a worst class: derived from the stored verdicts, image by image, and said in the report."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from absld_search.core import results
from absld_search.search import stats
from analysis import report
from analysis.answer import answer
from analysis.confirmed import confirmed
from analysis.verdicts import verdicts
from tests.study_folder import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("runs") / "temps", {"dual": 0.0, "shared": -0.09}, seeds=7, trials=5)
    _add_val(folder, easier=0.1)
    return folder


@pytest.fixture(scope="module")
def tables(study):
    return results.load(study)


@pytest.fixture(scope="module")
def found(study):
    return report.write(study)


def _add_val(folder, easier):
    """Give every confirm training verdicts on val: those on test, but that share of the wrong ones is right."""
    stored = results.load(folder)
    rows = stored.images.to_pandas()
    for key, of_training in rows.groupby("training"):
        val = of_training.assign(split="val")
        val["correct"] |= np.random.default_rng(0).random(len(val)) < easier
        both = [*of_training.to_dict("records"), *val.to_dict("records")]
        epochs = stored.epochs.to_pandas()
        classes = stored.classes.to_pandas()
        own = [table[table.training == key].to_dict("records") for table in (epochs, classes)]
        results.write_shard(folder / "trainings" / key, *own, both, {"key": key})
    trials, trainings = stored.trials.to_pylist(), stored.trainings.to_pylist()
    results.combine(folder, trials, trainings, stored.facts["objectives"])


def by_hand(tables, arm, split="test", attack="apgd"):
    """(seeds, C, images): verdicts of an arm's choice under an attack, found image by image."""
    images = tables.images.to_pandas()
    images = images[(images.split == split) & (images.attack == attack)]
    [trial] = [row for row in tables.trials.to_pylist() if row["arm"] == arm and row["chosen"]]
    own = images[images.training.str.startswith(f"{trial['config']}-s")].sort_values(["training", "image"])
    return own.correct.to_numpy().reshape(7, 10, -1)


def test_verdicts_are_aligned_by_seed_and_image(tables):
    for arm, one in verdicts(tables).items():
        assert one.seeds == list(range(1000, 1007)) and one.present.tolist() == list(range(10))
        np.testing.assert_array_equal(one.correct.reshape(7, 10, -1), by_hand(tables, arm))
    assert verdicts(tables, kind="clean")["dual"].correct.mean() > verdicts(tables)["dual"].correct.mean()


def test_the_worst_class_with_its_correction_and_interval(tables, found):
    for row in found.worst:
        accuracy = by_hand(tables, row.arm).mean(axis=2)
        assert row.minimum == pytest.approx(accuracy.min(axis=1).mean()) and row.images == 60
        assert row.debiased == pytest.approx(stats.debiased_worst(accuracy, np.full(10, 60)).mean())
        assert row.tail == pytest.approx(np.sort(accuracy)[:, :2].mean())
        assert row.low < row.debiased < row.high
    first, other = (by_hand(tables, arm).mean(axis=2) for arm in ("dual", "shared"))
    worst, base = other.min(axis=1).mean(), first.min(axis=1).mean()
    assert found.worst[0].rho == 0
    assert found.worst[1].rho == pytest.approx((worst - base) / base - (first.mean() - other.mean()) / first.mean())


def test_optimism_is_what_val_promised_and_test_did_not_keep(tables, found):
    searched = {row["arm"]: row for row in tables.trials.to_pylist() if row["chosen"]}
    for row in found.worst:
        # What the search saw is APGD-CE, so that is what val and test are compared in, not the stronger attack.
        test, val = (
            by_hand(tables, row.arm, split, "apgd-ce").mean(axis=2).min(axis=1).mean() for split in ("test", "val")
        )
        assert row.objective == "worst_class_robust_accuracy"
        assert row.val_optimism == pytest.approx(val - test) and row.val_optimism > 0
        assert row.search_optimism == pytest.approx(searched[row.arm]["objective/worst_class_robust_accuracy"] - test)


def test_val_changes_nothing_but_the_optimism(tables, found, tmp_path):
    folder = write_study(tmp_path / "temps", {"dual": 0.0, "shared": -0.09}, seeds=7, trials=5)
    without = answer(results.load(folder))
    assert without.comparisons == found.comparisons and without.rows == found.rows
    assert [row.val_optimism for row in without.worst] == [None, None]


def test_classes_are_told_apart_by_images_that_count_once(tables, found):
    dual, shared = by_hand(tables, "dual").astype(int), by_hand(tables, "shared").astype(int)
    vote = (shared - dual).sum(axis=0)  # (C, images)
    assert found.classes
    for row in found.classes:
        label = int(row.name)
        assert (row.better, row.worse) == ((vote[label] > 0).sum(), (vote[label] < 0).sum())
        p = binomtest(row.better, row.better + row.worse).pvalue
        assert p <= row.holm_p < 0.05
        assert row.difference == pytest.approx(shared[:, label].mean() - dual[:, label].mean())


def test_a_claim_beyond_these_images_needs_both_intervals(found):
    for one in found.comparisons:
        assert one.low_both <= one.mean <= one.high_both
        assert one.general == (one.decided and (one.low_both > 0 or one.high_both < 0))
    assert {one.measure for one in found.comparisons} == {
        "apgd_cvar", "worst_class_apgd_accuracy", "apgd_accuracy",
    }  # fmt: skip


def test_the_report_shows_it_and_says_what_would_decide(study, found):
    assert "there are 60" in found.power and "paired seeds" in found.power
    page, text = (study / "report" / "index.html").read_text(), report.table(found)
    for part in ("The worst classes", "Classes that tell arms apart", f"{100 * found.worst[0].debiased:.1f}"):
        assert part in page
    assert f"{100 * found.worst[0].debiased:.1f}" in text and found.power.split()[-1] in text
    assert "CVaR-20 %" in text and "debiased" in (study / "report" / "answer.md").read_text()


def test_an_oracle_is_called_one(tmp_path):
    folder = write_study(tmp_path / "s", {"a": 0.0}, seeds=2, trials=4, selection="knee; epoch: oracle:avg")
    assert any("looking at test" in caveat for caveat in answer(results.load(folder)).caveats)


def test_measures_derive_from_the_same_verdicts(tables):
    for arm, seeds in confirmed(tables).items():
        mean = np.mean([seed.measures["apgd_cvar"] for seed in seeds.values()])
        assert mean == pytest.approx(np.sort(by_hand(tables, arm).mean(axis=2))[:, :2].mean())
