"""A front for other images: drawn again class by class, the same for every trial, on top of the noise of seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from absld_search.core import results
from absld_search.search import racing
from analysis import loading, new_images, report, standing
from tests.analysis.test_whole_report import change, row_of
from tests.study_folder import write_study

IMAGES, LEVELS = 50, {0: 0.9, 1: 0.88, 2: 0.2}  # of a class; trial -> its accuracy in every class


def raced(folder: Path, levels: dict[int, float] = LEVELS, seeds: int = 3) -> Path:
    """A study of one arm, raced: verdicts on val of every trial and seed, on images of which some are harder."""
    write_study(folder, {"dual": 0.0}, seeds=0, trials=len(levels))
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(10), IMAGES)
    hardness, more, rows, classes = rng.random(labels.size), [], [], []
    for number, level in levels.items():
        for seed in range(seeds):
            more.append(row_of(f"config-dual-{number}", seed=seed, stage="race" if seed else "search"))
            correct = hardness + 0.02 * rng.standard_normal(labels.size) < level
            rows += [
                {
                    "training": key(number, seed),
                    "split": "val",
                    "attack": "apgd-ce",
                    "image": i,
                    "label": int(c),
                    "correct": bool(hit),
                }
                for i, (c, hit) in enumerate(zip(labels, correct, strict=True))
            ]
            classes += [
                {"training": key(number, seed), "split": "val", "attack": "apgd-ce", "class": c, "n": IMAGES,
                 "accuracy": float(correct[labels == c].mean())} for c in range(10)
            ]  # fmt: skip
    change(folder, lambda row: row | {"state": "COMPLETE", "reason": "", "objective/robust_accuracy": 0.5,
                                      "objective/worst_class_robust_accuracy": 0.5}, more=more)  # fmt: skip
    for name, of in (("images", rows), ("classes", classes)):
        pq.write_table(pa.Table.from_pylist(of, results.SHARDS[name]), folder / "results" / f"{name}.parquet")
    return folder


def key(number: int, seed: int) -> str:
    return str(row_of(f"config-dual-{number}", seed=seed, stage="race" if seed else "search")["training"])


def test_images_move_the_mean_as_the_binomial_does_and_all_trials_alike(tmp_path: Path) -> None:
    tables = loading.load(raced(tmp_path / "s"))
    keys = {str(n): [key(n, seed) for seed in range(3)] for n in LEVELS}
    twice = {**keys, "again": keys["0"]}
    moved = new_images.shifts(tables, twice, 400)
    assert moved is not None and moved.shape == (400, 4, 2)
    np.testing.assert_array_equal(moved[:, 0], moved[:, 3])  # the same images for all
    sd = moved[..., 1].std(axis=0)  # of the mean robust accuracy
    np.testing.assert_allclose(sd[:3], np.sqrt([p * (1 - p) / (10 * IMAGES) for p in LEVELS.values()]), rtol=0.25)
    assert np.corrcoef(moved[:, 0, 1], moved[:, 1, 1])[0, 1] > 0.5  # an image that is hard is so for both


def test_a_minimum_is_moved_to_both_sides(tmp_path: Path) -> None:
    """The minimum of images drawn again lies below the one at hand, where classes are alike; not so its shift."""
    tables = loading.load(raced(tmp_path / "s", {0: 0.5}, seeds=2))
    moved = new_images.shifts(tables, {"0": [key(0, 0), key(0, 1)]}, 200)
    assert moved is not None and abs(moved.mean(axis=0)).max() < 1e-12 and moved[..., 0].std() > 0.01


def test_who_is_clearly_behind_stays_so_and_a_place_among_equals_is_less_sure(tmp_path: Path) -> None:
    folder = raced(tmp_path / "s")
    found = {place.trial: place for place in standing.places(loading.load(folder))}
    assert found["dual-002"].images == found["dual-002"].joint == 0
    first, second = found["dual-000"], found["dual-001"]
    assert first.joint >= first.images > 0.5 and second.images >= second.joint
    report.write(folder)
    assert "with new images" in (folder / "report" / "index.html").read_text()


def test_without_verdicts_the_place_on_new_images_is_not_known(tmp_path: Path) -> None:
    folder = raced(tmp_path / "s")
    path = folder / "results" / "images.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.array(np.array(table["training"]) != key(2, 1))), path)
    assert all(np.isnan(place.images) for place in standing.places(loading.load(folder)))


def test_nothing_that_moves_leaves_the_probability_as_it_was() -> None:
    rng = np.random.default_rng(3)
    gains = {name: rng.normal(0.5, 0.1, (4, 2)) for name in "abc"}
    still = racing.front_probability(gains, moved=np.zeros((racing.DRAWS, 3, 2)))
    assert still == racing.front_probability(gains)
