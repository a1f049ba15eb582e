"""Under which attack an answer's numbers hold: the strongest that every confirm training has, and it says which."""

from __future__ import annotations

import gc
import json
import weakref

import numpy as np
import pytest

from absld_search.core import metrics, results
from absld_search.core.attack_names import ATTACKS, BY_WORD, KINDS
from analysis import cells, figures, report
from analysis.answer import answer, compared
from analysis.confirmed import confirmed, headline, headline_of
from analysis.verdicts import verdicts
from tests.study_folder import ATTACKS as STORED
from tests.study_folder import OLD_ATTACKS, write_study

ARMS = {"dual": 0.0, "shared": -0.2}
FULL = STORED | {"aa": -0.05}
WORDS = {
    "apgd": "AutoAttack's first two stages (APGD-CE, APGD-T)",
    "aa": "AutoAttack (APGD-CE, APGD-T, FAB-T, Square)",
    "robust": "APGD-CE",
}


def written(folder, attacks, **more):
    return write_study(folder, ARMS, seeds=6, trials=4, attacks=attacks, **more)


def rewrite(folder, change):
    """Write the images of one confirm training, the last, again as `change` turns them."""
    stored = results.load(folder)
    key = stored.trainings.to_pylist()[-1]["training"]
    epochs, classes, images = (table.to_pandas() for table in (stored.epochs, stored.classes, stored.images))
    own = [table[table.training == key].to_dict("records") for table in (epochs, classes, change(images))]
    results.write_shard(folder / "trainings" / key, *own, {"key": key})
    results.combine(folder, stored.trials.to_pylist(), stored.trainings.to_pylist(), stored.facts["objectives"])
    return results.load(folder)


@pytest.fixture(scope="module", params=[(STORED, "apgd"), (FULL, "aa"), (OLD_ATTACKS, "robust")], ids=lambda p: p[1])
def study(request, tmp_path_factory):
    attacks, kind = request.param
    return written(tmp_path_factory.mktemp("runs") / "temps", attacks), kind


def test_every_number_is_of_the_strongest_attack_that_is_stored(study):
    folder, kind = study
    tables = results.load(folder)
    [attack] = [name for name, word in KINDS.items() if word == kind]
    found, images = answer(tables), tables.images.to_pandas()
    assert headline(tables) == found.headline.kind == kind
    assert list(dict.fromkeys(one.measure for one in found.comparisons)) == compared(10, kind)
    for row, worst in zip(found.rows, found.worst, strict=True):
        own = images[(images.attack == attack) & images.training.str.startswith(f"config-{row.arm}-")]
        by_class = own.groupby(["training", "label"]).correct.mean().unstack().to_numpy()
        assert row.measures[f"worst_class_{kind}_accuracy"].mean == pytest.approx(by_class.min(axis=1).mean())
        assert worst.minimum == pytest.approx(by_class.min(axis=1).mean())
        assert worst.tail == pytest.approx(np.sort(by_class)[:, :2].mean())
        seeds = confirmed(tables)[row.arm].values()
        np.testing.assert_allclose([seed.attacked for seed in seeds], by_class)
        np.testing.assert_array_equal(verdicts(tables)[row.arm].correct.mean(), own.correct.mean())
        assert sum(row.worst_classes.values()) == 6
    assert all(np.isfinite((one.low_both, one.high_both)).all() for one in found.comparisons)


def test_the_answer_the_captions_and_the_figure_say_which_and_on_how_much(study):
    folder, kind = study
    found = report.write(folder)
    said = f"Measured under {WORDS[kind]}: the strongest attack stored for all 12 confirm trainings, on 600 test images"
    assert said in found.sentence and said in cells.legend(found)
    assert f"Worst-class accuracy under {WORDS[kind]}: shared is lower than dual" in found.sentence
    assert WORDS[kind] in cells.worst_legend(found) and WORDS[kind] in cells.classes_legend(found)
    assert any(f"under {WORDS[kind]}, the worst would" in caveat for caveat in found.caveats)
    assert json.loads((folder / "report" / "answer.json").read_text())["headline"]["kind"] == kind
    for name in ("answer.md", "answer.json"):
        assert said in (folder / "report" / name).read_text()
    [axes] = figures.class_bars(results.load(folder)).axes
    assert ("APGD-CE" if kind == "robust" else BY_WORD[kind].short) in axes.get_ylabel()


def test_the_attack_of_the_search_stands_beside_it(study):
    folder, kind = study
    found = answer(results.load(folder))
    (heading, rows), (narrow, _) = cells.rows(found), cells.rows(found, narrow=True)
    assert [heading.count(name) for name in ("robust", "worst class", "CW")] == [1, 1, 1]
    assert len(set(heading)) == len(heading) and all("–" not in row for row in rows)
    assert ("worst robust" in heading) == (kind != "robust") == ("CW" not in narrow)
    assert "robust" in narrow and max(map(len, report.table(found).splitlines())) <= 120
    column = heading.index("robust")
    for row, arm in zip(rows, found.rows, strict=True):
        assert row[column].startswith(f"{100 * arm.measures['robust_accuracy'].mean:.1f} ±")


def test_an_attack_that_one_training_lacks_does_not_count(tmp_path):
    folder = written(tmp_path / "s", STORED)
    lacking = rewrite(folder, lambda images: images[images.attack != "apgd"])
    old = answer(results.load(written(tmp_path / "old", OLD_ATTACKS)))
    found = answer(lacking)
    assert headline(lacking) == "robust" and headline_of(lacking).held == 11
    assert found.comparisons == old.comparisons and found.worst == old.worst and found.classes == old.classes
    assert any("is stored for 11 of 12 confirm trainings and does not count" in caveat for caveat in found.caveats)
    assert not any("does not count" in caveat for caveat in old.caveats)


def test_an_attack_on_a_part_of_the_images_does_not_count(tmp_path):
    folder = written(tmp_path / "s", STORED)
    assert (
        headline(rewrite(folder, lambda images: images[(images.attack != "apgd") | (images.image < 599)])) == "robust"
    )


def test_a_study_from_before_apgd_says_so_and_compares_no_two_attacks(tmp_path):
    folder = written(tmp_path / "s", {"clean": 0.25, "pgd20": 0.02, "cw20": -0.02})
    found = report.write(folder)
    heading, rows = cells.rows(found)
    assert found.headline.kind == "cw" and "robust" not in heading and all("–" not in row for row in rows)
    assert "under CW-inf with 20 steps" in found.sentence and "robust" not in cells.legend(found)
    assert {(row.search_optimism, row.val_optimism) for row in found.worst} == {(None, None)}
    assert "nan" not in report.table(found).split()


def test_trainings_that_do_not_count_have_no_say(tmp_path):
    folder = written(tmp_path / "s", STORED, confirm_seed_indices=list(range(1000, 1005)))
    tables = rewrite(folder, lambda images: images[images.attack != "apgd"])
    assert headline(tables) == "apgd" and headline_of(tables).trainings == 10


def test_the_lowest_classes_attack_never_leads_because_it_treats_classes_unequally(tmp_path):
    assert headline(results.load(written(tmp_path / "s", STORED | {"apgd-lowest4": -0.05}))) == "apgd"


def test_a_study_with_nothing_confirmed_names_no_attack(tmp_path):
    found = answer(results.load(written(tmp_path / "s", STORED, failed=list(ARMS))))
    assert found.headline.trainings == 0 and "Measured under" not in found.sentence


def test_every_stored_attack_has_names_for_people():
    assert all(attack.short and attack.plain for attack in ATTACKS.values() if attack.word)
    assert len({attack.short for attack in BY_WORD.values()}) == len(BY_WORD)


def test_a_metric_is_a_form_under_an_attack():
    for name in metrics.NAMES:
        assert metrics.form_of(name).format(metrics.kind_of(name)) == name
    assert metrics.kind_of("minutes") == ""
    assert metrics.tail_objective(100, "aa") == "worst_tenth_aa_accuracy"


def test_what_is_remembered_of_a_study_is_forgotten_with_it(tmp_path):
    tables = results.load(write_study(tmp_path / "s", {"a": 0.0}, seeds=2, trials=3))
    assert confirmed(tables) is confirmed(tables)
    alive = weakref.ref(tables)
    del tables
    gc.collect()
    assert alive() is None
