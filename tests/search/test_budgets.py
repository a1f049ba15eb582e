"""What a larger budget adds, exactly; hours shared by the arms; and trainings taken over from other studies."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from absld_search.core import results
from absld_search.core.store import Store
from absld_search.search import costs, describe, preflight, samplers, tables
from absld_search.search.ledger import TOOK, Ledger
from absld_search.search.plan import Plan
from absld_search.search.preflight import check
from absld_search.search.progress import Progress, planned
from absld_search.search.queue import Queue
from absld_search.search.reuse import Reuse
from absld_search.space import LogUniform, SearchSpace
from absld_search.words import UsageError
from tests.search.requests import TWO_ARMS, plan, pretend

TWO_TUNED = SearchSpace(
    fixed={"method": "absld"},
    arms={"dual": {"coupling": "dual"}, "shared": {"coupling": "shared"}},
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)


def drain(made: Plan, seconds: float = 1.0) -> list[tuple[str, str]]:
    """(stage, key) of everything that is trained."""
    queue, seen = Queue(made, Ledger(made.request.storage, made.request.study)), []
    while (row := queue.take()) is not None:
        queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=seconds)
        seen.append((row["stage"], row["training"]))
    return seen


def test_a_study_that_grows_trains_only_what_is_new(tmp_path: Path) -> None:
    """8 to 12 trials, then an arm, then a confirm seed."""
    first = drain(plan(tmp_path, space=TWO_ARMS, trials=8, seeds=1))
    assert [stage for stage, _ in first].count("search") == 8 + 1
    more = drain(plan(tmp_path, space=TWO_ARMS, trials=12, seeds=1))
    assert [stage for stage, _ in more].count("search") == 4, "four for the tuned arm, none for the other"
    arms = {**TWO_ARMS.arms, "shared": {"coupling": "shared"}}
    wider = SearchSpace(TWO_ARMS.fixed, arms, TWO_ARMS.tuned)
    arm = drain(plan(tmp_path, space=wider, trials=12, seeds=1))
    assert [stage for stage, _ in arm].count("search") == 12 and [stage for stage, _ in arm].count("confirm") == 1
    seed = drain(plan(tmp_path, space=wider, trials=12, seeds=2))
    assert [stage for stage, _ in seed] == ["confirm"] * 3, "one for each arm's choice"
    keys = [key for _, key in [*first, *more, *arm, *seed]]
    assert len(keys) == len(set(keys)), "nothing is trained twice"
    assert drain(plan(tmp_path, space=wider, trials=12, seeds=2)) == []


def test_hours_are_shared_equally(tmp_path: Path) -> None:
    made = plan(tmp_path, space=TWO_TUNED, trials=None, seeds=1, time_budget=20 / 3600, storage="sqlite://")
    assert costs.share(made) == pytest.approx(10)
    queue = Queue(made, Ledger(made.request.storage, "study"))
    while (row := queue.take()) is not None:  # the second arm's trainings take three times as long
        slow = row["job"]["hyperparameters"]["coupling"] == "shared"
        queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=3.0 if slow else 1.0)
    counts = {arm: len(queue.ledger.trials(arm=arm)) for arm in ("dual", "shared")}
    assert counts == {"dual": 10, "shared": 4}, "until ten seconds are spent in each"


def test_arms_that_meet_in_their_first_point_spend_the_same(tmp_path: Path) -> None:
    """Their papers' defaults are one configuration: who comes second finds it trained, and pays for it too."""
    tuned = {name: LogUniform(0.5, 4.0) for name in ("initial_temperature_adv", "initial_temperature_clean")}
    arms = {"both": {}, "adv": {"initial_temperature_clean": 1.0}, "clean": {"initial_temperature_adv": 1.0}}
    space = SearchSpace({"method": "absld"}, arms, tuned)
    made = plan(tmp_path, space=space, trials=None, seeds=1, time_budget=15 / 3600, storage="sqlite://")
    queue = Queue(made, Ledger("sqlite://", "study"))
    while (row := queue.take()) is not None:
        queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=1.0)
    assert {arm: len(queue.ledger.trials(arm=arm)) for arm in arms} == dict.fromkeys(arms, 5)


def test_an_arm_that_only_fails_spends_its_share_and_no_more(tmp_path: Path) -> None:
    made = plan(tmp_path, space=TWO_TUNED, trials=None, seeds=1, time_budget=12 / 3600, storage="sqlite://")
    ledger = Ledger("sqlite://", "study")
    queue = Queue(made, ledger)
    while (row := queue.take()) is not None:
        lost = row["job"]["hyperparameters"]["coupling"] == "shared"
        metrics, reason = (None, "nonfinite:loss@1") if lost else (pretend(row["job"]), "")
        queue.done(row["training"], metrics, reason, epochs=0 if lost else 2, seconds=1.0)
    assert {arm: len(ledger.trials(arm=arm)) for arm in ("dual", "shared")} == {"dual": 6, "shared": 6}


def test_attempts_that_the_machine_ended_are_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr("absld_search.search.queue.time.monotonic", lambda: float(next(clock)))
    queue = Queue(plan(tmp_path, trials=1, seeds=1, storage="sqlite://"), Ledger("sqlite://", "study"))
    row = queue.take()
    queue.machine_failed(row["training"], "its worker died")
    again = queue.take()
    assert again["training"] == row["training"] and again["seconds"] == 5.0
    queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=1.5)
    assert queue.ledger.trainings(training=row["training"])[0]["seconds"] == 6.5


def test_a_race_ends_with_its_arms_hours(tmp_path: Path) -> None:
    """Ten trials of a second each leave six seconds of each arm's sixteen."""
    words = {"trials": 10, "seeds": 1, "race": True, "storage": "sqlite://"}
    made = plan(tmp_path, space=TWO_TUNED, time_budget=32 / 3600, **words)
    queue = Queue(made, Ledger("sqlite://", "study"))
    while (row := queue.take()) is not None:
        noise = random.Random(row["training"]).gauss(0, 0.05)
        metrics = {name: value + noise for name, value in pretend(row["job"]).items()}
        queue.done(row["training"], metrics, "", epochs=2, seconds=1.0)
    configs = {arm: {t["config"] for t in queue.ledger.trials(arm=arm)} for arm in ("dual", "shared")}
    raced = queue.ledger.trainings(stage="race")
    assert {arm: sum(row["config"] in known for row in raced) for arm, known in configs.items()} == dict.fromkeys(
        configs, 6
    )
    assert len(queue.ledger.trainings(stage="confirm")) == 2


def test_promotions_end_with_the_hours_but_no_arm_is_left_without_a_whole_training(tmp_path: Path) -> None:
    words = {"trials": None, "seeds": 1, "stopping": "mo-asha", "set": {"epochs": "9"}, "storage": "sqlite://"}
    for hours, whole in ((4, 1), (60, 2)):
        made = plan(tmp_path / str(hours), space=TWO_TUNED, time_budget=2 * hours / 3600, **words)
        queue = Queue(made, Ledger("sqlite://", "study"))
        while (row := queue.take()) is not None:
            queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=row["job"]["schedule"]["epochs"])
        for arm in ("dual", "shared"):
            assert len(queue.halving[arm].whole) >= whole
            assert queue.costs.spent[arm] <= max(hours + 9, 4 + 3 + 9), "one training beyond, or the one ladder"


def test_spent_hours_are_known_after_a_restart(tmp_path: Path) -> None:
    made = plan(tmp_path, space=TWO_TUNED, trials=None, seeds=1, time_budget=12 / 3600)
    assert len([stage for stage, _ in drain(made) if stage == "search"]) == 12
    assert drain(made) == []
    more = plan(tmp_path, space=TWO_TUNED, trials=None, seeds=1, time_budget=16 / 3600)
    assert len([stage for stage, _ in drain(more) if stage == "search"]) == 4


def test_epochs_are_shared_equally(tmp_path: Path) -> None:
    """Eleven epochs for each arm; a trial is begun as long as one is left."""
    words = {"trials": None, "seeds": 1, "epochs_budget": 22}
    made = plan(tmp_path, space=TWO_TUNED, **words)
    (length,) = {made.config(arm.words, 0).schedule.epochs for arm in made.arms}
    stages = [stage for stage, _ in drain(made)]
    assert stages.count("search") == 2 * -(-11 // length) and stages.count("confirm") == 2
    assert drain(made) == []
    more = drain(plan(tmp_path, space=TWO_TUNED, **{**words, "epochs_budget": 22 + 2 * length}))
    assert [stage for stage, _ in more].count("search") == 2, "one more for each arm"


def test_the_smaller_of_two_budgets_holds(tmp_path: Path) -> None:
    words = {"trials": None, "seeds": 1, "time_budget": 1.0, "epochs_budget": 8, "storage": "sqlite://"}
    made = plan(tmp_path, space=TWO_TUNED, **words)
    (length,) = {made.config(arm.words, 0).schedule.epochs for arm in made.arms}
    assert [stage for stage, _ in drain(made)].count("search") == 2 * -(-4 // length)


def test_what_a_budget_comes_to_is_planned_for(tmp_path: Path) -> None:
    """Not the thousand trials that no arm may pass: for disk, progress, and a genetic sampler's population."""
    hours = plan(tmp_path, space=TWO_TUNED, trials=None, seeds=1, time_budget=1.0, sampler="nsga2", storage="sqlite://")
    usual = hours.setting.trials
    assert planned(hours)["search"] == 2 * usual
    asked = plan(tmp_path, space=TWO_TUNED, trials=usual, seeds=1)
    assert preflight.bytes_needed(hours) == preflight.bytes_needed(asked)
    assert "nsga2 draws at random" in (said := describe.opening(hours)) and f"dual about {usual}, shared" in said
    study = Queue(hours, Ledger("sqlite://", "study")).studies["dual"]
    assert study._fresh()._population_size == samplers.Setting(0, trials=usual).population


def test_epochs_say_how_many_trials_they_pay(tmp_path: Path) -> None:
    words = {"space": TWO_TUNED, "trials": None, "seeds": 1, "set": {"epochs": "18"}, "epochs_budget": 2 * 180}
    assert planned(plan(tmp_path, **words))["search"] == 2 * 10
    assert planned(plan(tmp_path, **words, search_seeds=2))["search"] == 2 * 2 * 5
    halved = plan(tmp_path, **words, stopping="mo-asha")
    assert halved.rungs(halved.arms[0]) == (2, 6, 18)
    assert planned(halved)["rung"] == 2 * (30 + 30 // 3), "2 + 6 / 3 + 18 / 9 epochs each"
    words |= {"trials": 7}
    assert planned(plan(tmp_path, **words))["search"] == 2 * 7


@pytest.mark.parametrize("budget", [{"time_budget": 1.0}, {"gpu_hours": 1.0}, {"epochs_budget": 9}])
def test_a_race_that_a_budget_would_never_let_begin_is_refused(tmp_path: Path, budget: dict) -> None:
    with pytest.raises(UsageError, match="--race with a budget needs --trials"):
        plan(tmp_path, trials=None, race=True, **budget)
    assert plan(tmp_path, trials=3, race=True, **budget).request.race


def log(folder: Path, *when: float) -> None:
    """The epochs of a training, and the seconds at which they ended."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"epoch": i, "time": int(1000 * at), "metrics": {}}) for i, at in enumerate(when, start=1)]
    (folder / "epochs.jsonl").write_text("\n".join(lines))


def test_attempts_that_a_kill_of_the_driver_ended_are_paid(tmp_path: Path) -> None:
    """From when they were handed out to the last epoch that was heard of."""
    made = plan(tmp_path, space=TWO_TUNED, trials=2, seeds=1)
    queue = Queue(made, Ledger(made.request.storage, "study"))
    heard, silent = queue.take(), queue.take()
    log(made.folder / "trainings" / heard["training"], time.time() + 60, time.time() + 100)
    again = Queue(made, Ledger(made.request.storage, "study"))  # that driver was killed
    assert again.ledger.trainings(training=heard["training"])[0]["seconds"] == pytest.approx(100, abs=30)
    assert not again.ledger.trainings(training=silent["training"])[0]["seconds"], "nobody knows"
    row = again.take()
    again.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=7.0)
    assert again.ledger.trainings(training=row["training"])[0]["seconds"] == pytest.approx(107, abs=30)


def test_what_was_taken_over_costs_nothing_and_tells_what_the_rest_will_take(tmp_path: Path) -> None:
    made = plan(tmp_path, space=TWO_TUNED, trials=None, seeds=1, reuse=True, epochs_budget=8, time_budget=1.0)
    queue = Queue(made, Ledger(made.request.storage, "study"))
    row = queue.take()
    length = row["job"]["schedule"]["epochs"]
    queue.ledger.note(f"{TOOK}{row['training']}", 50.0 * length)
    queue.done(row["training"], pretend(row["job"]), "", epochs=length, seconds=0.01)
    assert queue.costs.trained["dual"] == 0 and queue.costs.spent["dual"] == 0.01
    assert queue.costs.known["dual"] == (50.0 * length, length)
    after = Queue(made, Ledger(made.request.storage, "study"))
    assert (after.costs.known, after.costs.trained) == (queue.costs.known, queue.costs.trained), "after a restart too"
    left = Progress(made, queue.ledger).now().left
    assert left is not None and left >= 50.0 * length, "not at the time that it took to copy"


@pytest.mark.parametrize(("took", "stored"), [(100.0, 100.0), (0.0, None)])
def test_the_tables_say_what_a_training_took_where_it_was_trained(
    took: float, stored: float | None, tmp_path: Path
) -> None:
    """Of one without the times of two epochs nobody knows; the moment that it took to copy it is no answer."""
    made = plan(tmp_path, space=TWO_TUNED, trials=1, seeds=1, reuse=True)
    queue = Queue(made, Ledger(made.request.storage, "study"))
    row = queue.take()
    results.write_shard(made.folder / "trainings" / row["training"], [], [], [], result={"robust_accuracy": 0.5})
    queue.ledger.note(f"{TOOK}{row['training']}", took)
    queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.01)
    tables.write(made, queue.ledger)
    kept = {one["training"]: one["seconds"] for one in results.read(made.folder, "trainings").to_pylist()}
    assert kept[row["training"]] == stored
    assert results.read(made.folder, "trials").to_pylist()[0]["seconds"] == (stored or 0.0)


def test_hours_that_are_none_are_refused(tmp_path: Path) -> None:
    for words, message in (
        (dict(time_budget=0.0), "--time-budget"),
        (dict(gpu_hours=1.0), "needs --gpus-per-trial"),
        (dict(epochs_budget=0), "--epochs-budget must be at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            check(plan(tmp_path, **words))


def test_a_sampler_says_when_a_budget_cannot_serve_it(tmp_path: Path) -> None:
    assert not samplers.advice("tpe", samplers.Setting(0, trials=8))
    assert "begins to learn at 8" in samplers.advice("nsga2", samplers.Setting(0, trials=7))[0]
    assert not samplers.advice("nsga2", samplers.Setting(0, trials=8))
    assert "at random: tpe" in samplers.advice("gp", samplers.Setting(0, conditional=True))[0]
    with pytest.raises(UsageError, match="Did you mean 'nsga3'"):
        samplers.require("nsga")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, samplers.EXTRAS["botorch"], raising=False)
    with pytest.raises(UsageError, match=r"pip install '\.\[botorch\]'"):
        samplers.require("botorch")


def finished_study(out: Path, name: str, data: str) -> tuple[Plan, Ledger, str]:
    """A study of which one training is complete, as files; and that training's key."""
    made = plan(out, space=TWO_TUNED, study=name, reuse=True)
    ledger = Ledger(made.request.storage, name)
    ledger.fact("data", {"sha256": data})
    ledger.fact("teacher:trades-wide", {"sha256": "abc"})
    facts = {"data": {"sha256": data}, "teachers": {"trades-wide": {"sha256": "abc"}}}
    results.write_facts(made.folder, facts)
    return made, ledger, made.config({**made.arms[0].words, "temperature_lr": 0.1}, seed=0).key


def test_an_equal_training_is_taken_over_and_said(tmp_path: Path) -> None:
    first, _, key = finished_study(tmp_path, "first", "d1")
    other, _, _ = finished_study(tmp_path, "other", "d2")
    for study in (first, other):
        folder = study.folder / "trainings" / key
        results.write_shard(folder, [], [], [], result={"robust_accuracy": 0.5})
        log(folder, 10.0, 13.0, 16.0)
        (folder / "mine").write_text(study.request.study)
    second, ledger, _ = finished_study(tmp_path, "second", "d1")
    said: list[str] = []
    reuse = Reuse(second, ledger, said.append)
    reuse.started({"training": key, "job": {"test": True, "schedule": {"epochs": 3}}})
    assert not said, "the confirm stage needs test values, which the search did not measure"
    reuse.started({"training": key, "job": {"test": False, "schedule": {"epochs": 3}}})
    assert ledger.facts(TOOK) == {key: 9.0}, "what an epoch took there"
    assert said == [f"training {key} is taken over from study 'first'"]
    target = second.folder / "trainings" / key
    assert results.read_result(target) == {"robust_accuracy": 0.5} and (target / "mine").read_text() == "first"
    third, ledger, _ = finished_study(tmp_path, "third", "d3")
    Reuse(third, ledger, said.append).started({"training": key, "job": {"test": False}})
    assert len(said) == 1, "other data under the same name"


def test_with_a_store_what_is_taken_over_lies_where_the_worker_looks(tmp_path: Path) -> None:
    first, _, key = finished_study(tmp_path, "first", "d1")
    results.write_shard(first.folder / "trainings" / key, [], [], [], result={"robust_accuracy": 0.5})
    log(first.folder / "trainings" / key, 10.0, 13.0, 16.0)
    second, ledger, _ = finished_study(tmp_path, "second", "d1")
    said: list[str] = []
    training = {"training": key, "job": {"test": False, "schedule": {"epochs": 3}}}
    (tmp_path / "away").write_text("a file, where nothing can be written")
    for store, count in (("away", 0), ("store", 1)):
        uri = (tmp_path / store).as_uri()
        made = replace(second, request=replace(second.request, store=uri))
        Reuse(made, ledger, said.append).started(training)
        assert len(ledger.facts(TOOK)) == count and (second.folder / "trainings" / key).exists() == bool(count)
    assert "is not taken over: the store is away" in said[0] and "is taken over from study 'first'" in said[1]
    worker = tmp_path / "worker"
    Store(uri).pull(f"second/trainings/{key}", worker)
    assert results.read_result(worker) == {"robust_accuracy": 0.5}
