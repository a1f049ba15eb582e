"""Racing: what a probability on a front means, who gets the next seed, and half the evaluations for the same front."""

from __future__ import annotations

import statistics
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from absld_search.search import racing, tables
from absld_search.search.ledger import COMPLETE, INFEASIBLE, Ledger
from absld_search.search.queue import RACE_SEEDS_FROM, Queue
from absld_search.search.racing import Noise, Samples, front_probability, next_contender, pooled
from absld_search.search.sharing import Sharing
from absld_search.space import LogUniform, SearchSpace
from benchmarks.racing import compare, noise
from tests.search.requests import plan, pretend

NOISE = Noise(np.diag([1e-4, 1e-4]), 1000)


def seeds(mean: tuple[float, float], n: int, seed: int = 0) -> np.ndarray:
    return np.array(mean) + np.random.default_rng(seed).normal(0, 0.01, (n, 2))


def test_probability_is_one_for_the_clear_and_half_for_the_equal() -> None:
    gains = {"good": np.array([[0.5, 0.5]]), "bad": np.array([[0.1, 0.1]]), "other": np.array([[0.6, 0.3]])}
    found = front_probability(gains, NOISE)
    assert found == {"good": 1.0, "bad": 0.0, "other": 1.0}
    twins = {"a": np.array([[0.5, 0.5]]), "b": np.array([[0.5, 0.5]])}
    for chance in front_probability(twins, NOISE).values():
        assert chance == pytest.approx(0.75, abs=0.07), "beaten in both objectives in one case of four"
    assert front_probability({}) == {} and front_probability({"a": np.array([[1.0, 1.0]])}) == {"a": 1.0}


def test_more_seeds_make_it_surer() -> None:
    few = front_probability({"a": seeds((0.50, 0.50), 2), "b": seeds((0.495, 0.495), 2, 1)}, NOISE)
    many = front_probability({"a": seeds((0.50, 0.50), 64), "b": seeds((0.495, 0.495), 64, 1)}, NOISE)
    assert many["b"] < few["b"] or many["b"] < 0.05


def test_the_pooled_noise_is_the_noise() -> None:
    found = pooled([seeds((0.5, 0.5), 2, seed) for seed in range(500)])
    assert found.covariance == pytest.approx(np.diag([1e-4, 1e-4]), abs=2e-5) and found.freedom == 500
    assert pooled([np.array([[0.5, 0.5]])]).freedom == 0


def test_few_residuals_leave_more_open() -> None:
    gains = {"a": np.array([[0.50, 0.50]]), "b": np.array([[0.47, 0.47]])}
    sure = front_probability(gains, Noise(NOISE.covariance, 1000))["b"]
    assert front_probability(gains, Noise(NOISE.covariance, 2))["b"] > sure


def plainly(means: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """(draws, N, N): whether the second beats the first by the margin, each compared with each."""
    here, there = means[:, :, None] + margin, means[:, None, :]
    return (there >= here).all(axis=-1) & (there > here).any(axis=-1) & ~np.eye(means.shape[1], dtype=bool)


@given(
    arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 5)),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_who_is_contested_is_found_by_the_front_alone(means: np.ndarray, width: float) -> None:
    """The same as comparing each with each, ties and duplicates included."""
    margin = np.full(means.shape[2], width)
    losses, near = racing.contested(means, margin)
    assert (losses == plainly(means, margin).any(axis=2)).all()
    assert (near == plainly(means, -margin).any(axis=2)).all()
    for index in range(means.shape[1]):
        assert (racing.beats(means, index, margin) == plainly(means, margin)[:, index]).all()


def test_the_next_seed_goes_to_the_doubtful() -> None:
    gains = {"top": seeds((0.5, 0.5), 4), "near": seeds((0.499, 0.499), 4, 1), "far": seeds((0.1, 0.1), 1)}
    assert next_contender(Samples(gains), NOISE) in ("top", "near")
    assert next_contender(Samples({"top": gains["top"], "far": gains["far"]}), NOISE) is None, "decided"
    assert next_contender(Samples(gains), NOISE, most=4) is None, "the budget of seeds is spent"
    assert next_contender(Samples(gains, frozenset({"top", "near"})), NOISE) is None, "what could tell is under way"
    single = {name: each[:1] for name, each in gains.items()}
    assert next_contender(Samples(single)) in ("top", "near"), "the noise is measured on the best"
    assert next_contender(Samples(single, frozenset(single))) is None
    assert next_contender(Samples({"one": gains["top"]})) is None
    spent = dict.fromkeys(gains, racing.MOST_SEEDS)
    assert next_contender(Samples(gains, asked=spent), NOISE) is None, "seeds that failed were seeds"
    assert next_contender(Samples(single, asked=spent)) is None


def test_half_the_evaluations_for_the_same_front() -> None:
    """A short form of benchmarks/racing.py; and a race that ends too soon is found wrong by the same bound."""
    found = compare(repetitions=20, count=20)
    errors = {name: sum(result.wrong for result in results) for name, results in found.items()}
    spent = {name: statistics.mean(result.evaluations for result in results) for name, results in found.items()}
    assert spent["raced"] <= spent["fixed"] / 2
    assert errors["raced"] <= errors["fixed"]
    hasty = compare(repetitions=20, count=20, delta=0.4)
    assert sum(result.wrong for result in hasty["raced"]) > errors["fixed"]


def test_the_noise_of_the_benchmark_is_the_tables(tmp_path: Path) -> None:
    rows = [
        {"configuration": number, "schedule": length, "epoch": epoch, "worst_class_robust_accuracy": level + worst,
         "robust_accuracy": level + mean}
        for number, level in ((0, 0.3), (1, 0.5))
        for worst, mean in ((-0.1, 0.0), (0.1, 0.02))
        for length, epoch in ((3, 3), (30, 10), (30, 30))
    ]  # fmt: skip
    for row in rows:
        if row["epoch"] < 30:
            row["robust_accuracy"] = row["configuration"] * 9.0  # of no whole training
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "curves.parquet")
    worst, mean = 0.1 * 2**0.5, 0.01 * 2**0.5
    both = np.array([[worst**2, worst * mean], [worst * mean, mean**2]])  # they rise and fall together
    assert noise(tmp_path / "curves.parquet") == pytest.approx(both)


def test_a_study_races_its_contenders_before_it_chooses(tmp_path: Path) -> None:
    space = SearchSpace(fixed={"method": "absld"}, arms={"one": {}}, tuned={"temperature_lr": LogUniform(1e-2, 1.0)})
    made = plan(tmp_path, space=space, trials=3, seeds=1, race=True)
    here = Queue(made, Ledger(made.request.storage, "study"))
    stages = []
    while (row := here.take()) is not None:
        noise = np.random.default_rng(zlib.crc32(row["training"].encode())).normal(0, 0.05)
        metrics = {name: value + noise for name, value in pretend(row["job"]).items()}
        here.done(row["training"], metrics, "", epochs=2, seconds=0.1)
        stages.append(row["stage"])
    assert stages[:3] == ["search"] * 3 and stages[-1] == "confirm" and "race" in stages
    raced = here.ledger.trainings(stage="race")
    assert {row["seed"] for row in raced} <= set(range(RACE_SEEDS_FROM, RACE_SEEDS_FROM + racing.MOST_SEEDS))
    for trial in here.ledger.trials():
        rows = [row for row in here.ledger.trainings(config=trial["config"]) if row["stage"] != "confirm"]
        assert trial["state"] == COMPLETE and len(rows) <= racing.MOST_SEEDS
        mean = statistics.mean(row["metrics"]["robust_accuracy"] for row in rows)
        assert trial["objectives"]["robust_accuracy"] == pytest.approx(mean), "a mean over all of its seeds"
    told = {t.user_attrs.get("supersedes", t.number): t for t in here.studies["one"].study.get_trials()}
    for trial in here.ledger.trials():
        assert told[trial["number"]].values == list(trial["objectives"].values()), "Optuna's last word is the race's"
    count = len(here.studies["one"].study.get_trials())
    assert count <= 2 * len(told), "one more trial for a raced one, not one for each seed"
    again = Queue(made, Ledger(made.request.storage, "study"))
    assert again.take() is None and len(again.studies["one"].study.get_trials()) == count, "told once"
    spent = tables._spent(made, Sharing(made, here.ledger), here.ledger.trials(), here.ledger.trainings())
    assert sum(each["seeds"] for each in spent.values()) == 3 + len(raced)
    assert sum(each["seconds"] for each in spent.values()) == pytest.approx(0.1 * (3 + len(raced)))
    (length,) = {row["job"]["schedule"]["epochs"] for row in raced}
    assert all(each["epochs"] == length * each["seeds"] for each in spent.values())
    assert all(0 <= each["front_probability"] <= 1 for each in spent.values())
    assert max(each["front_probability"] for each in spent.values()) > 0.5


def test_a_race_ends_where_it_is_not_asked_for_any_more(tmp_path: Path) -> None:
    space = SearchSpace(fixed={"method": "absld"}, arms={"one": {}}, tuned={"temperature_lr": LogUniform(1e-2, 1.0)})
    here = Queue(
        made := plan(tmp_path, space=space, trials=3, seeds=1, race=True), Ledger(made.request.storage, "study")
    )
    while (row := here.take())["stage"] != "race":
        here.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.1)
    here = Queue(made := plan(tmp_path, space=space, trials=3, seeds=1), Ledger(made.request.storage, "study"))
    stages = []
    while (row := here.take()) is not None:
        here.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.1)
        stages.append(row["stage"])
    assert stages == ["confirm"] and not here.ledger.trainings(stage="race")


def test_what_a_race_finds_infeasible_is_told(tmp_path: Path) -> None:
    space = SearchSpace(fixed={"method": "absld"}, arms={"one": {}}, tuned={"temperature_lr": LogUniform(1e-2, 1.0)})
    words = {"trials": 3, "seeds": 1, "race": True, "constraints": ("clean_accuracy >= 0.7",), "storage": "sqlite://"}
    here = Queue(plan(tmp_path, space=space, **words), Ledger("sqlite://", "study"))
    while (row := here.take()) is not None:
        clean = {"clean_accuracy": 0.71 if row["stage"] == "search" else 0.5}
        here.done(row["training"], pretend(row["job"]) | clean, "", epochs=2, seconds=0.1)
    raced = {row["config"] for row in here.ledger.trainings(stage="race")}
    trials = [trial for trial in here.ledger.trials() if trial["config"] in raced]
    assert trials and {trial["state"] for trial in trials} == {INFEASIBLE}
    told = {t.user_attrs.get("supersedes", t.number): t for t in here.studies["one"].study.get_trials()}
    assert all(told[trial["number"]].constraints["clean_accuracy"] > 0 for trial in trials)


def test_seeds_that_fail_end_a_race_and_are_said(tmp_path: Path) -> None:
    space = SearchSpace(fixed={"method": "absld"}, arms={"one": {}}, tuned={"temperature_lr": LogUniform(1e-2, 1.0)})
    made = plan(tmp_path, space=space, trials=3, seeds=1, race=True, storage="sqlite://")
    here = Queue(made, Ledger(made.request.storage, "study"))
    while (row := here.take()) is not None:
        lost = row["stage"] == "race"
        metrics = None if lost else pretend(row["job"])
        here.done(row["training"], metrics, "nonfinite:loss@1" if lost else "", epochs=2, seconds=0.1)
    raced = here.ledger.trainings(stage="race")
    counts = {trial["trial"]: sum(r["config"] == trial["config"] for r in raced) for trial in here.ledger.trials()}
    assert raced and max(counts.values()) <= racing.MOST_SEEDS - 1
    for trial in here.ledger.trials():
        count = counts[trial["trial"]]
        assert trial["state"] == COMPLETE
        assert trial["reason"] == (f"{count} of {count} more seeds failed" if count else "")
