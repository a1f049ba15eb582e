"""A training that is one arm's rung and another arm's whole: trained once, and counted by both."""

from __future__ import annotations

from pathlib import Path

import pytest

from absld_search.search import tables
from absld_search.search.ledger import COMPLETE, FAILED, FINAL, STOPPED, WAITING, Ledger, Row, sqlite_url
from absld_search.search.plan import Arm
from absld_search.search.queue import CONFIRM, Queue
from absld_search.space import LogUniform, SearchSpace
from tests.search.requests import plan, pretend

LENGTHS = SearchSpace(
    fixed={"method": "absld"},
    arms={"tenth": {"epochs": 3}, "third": {"epochs": 10}, "whole": {"epochs": 30}},
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
WORDS = {"trials": 6, "seeds": 1, "sampler": "random", "stopping": "mo-asha"}
# The same points in every arm, so that rungs meet.
MEETING = SearchSpace(
    LENGTHS.fixed, LENGTHS.arms, LENGTHS.tuned, try_first=tuple({"temperature_lr": x} for x in (0.2, 0.3, 0.4, 0.5))
)


def drain(here: Queue, slots: int, again: bool = False, lose: str = "") -> list[str]:
    """Keys in the order in which they are begun, `slots` at a time, the first begun ending first."""
    running, seen = [], []
    while True:
        while len(running) < slots and (row := here.take()) is not None:
            running.append(row)
            seen.append(row["training"])
        if not running:
            assert here.finished()
            return seen
        row = running.pop(0)
        failed = row["training"] == lose
        metrics = None if failed else pretend(row["job"])
        here.done(row["training"], metrics, "nonfinite" if failed else "", epochs=3, seconds=1.0)
        here = Queue(here.plan, here.ledger) if again and not running else here


def study(out: Path, **words: object) -> Queue:
    made = plan(out, space=MEETING, **{**WORDS, "storage": "sqlite://", **words})
    return Queue(made, Ledger(made.request.storage, "study"))


@pytest.mark.parametrize(("slots", "search_seeds"), [(1, 1), (2, 1), (4, 1), (2, 2)])
def test_arms_that_share_rungs_all_come_to_their_end(tmp_path: Path, slots: int, search_seeds: int) -> None:
    here = study(tmp_path, search_seeds=search_seeds)
    seen = drain(here, slots)
    assert len(seen) == len(set(seen)), "nothing is trained twice"
    ledger, trials = here.ledger, here.ledger.trials()
    assert {row["state"] for row in ledger.trainings()} == {COMPLETE}
    assert {trial["state"] for trial in trials} == {COMPLETE, STOPPED}
    confirmed = {trial["arm"] for trial in trials if trial["confirmed"]}
    assert confirmed == set(LENGTHS.arms) and len(ledger.trainings(stage=CONFIRM)) == 3
    wholes = [row for row in ledger.trainings(stage="search") if row["seed"] == 0]
    assert all(row["training"] == f"{row['config']}-s0" for row in wholes), "a whole training stands under its own"
    assert not any(each.running() for each in here.studies.values()), "Optuna has heard of every trial"
    states = {trial["trial"]: trial["state"] for trial in trials}
    assert any(
        len({name.split("-")[0] for name in here.sharing.of(row)}) > 1
        and COMPLETE in map(states.get, here.sharing.of(row))
        for row in wholes
    ), "one is another arm's rung"


def test_a_restart_between_any_two_trainings_changes_nothing_where_rungs_are_shared(tmp_path: Path) -> None:
    files = {"storage": sqlite_url(tmp_path / "study.db"), "trials": 4, "sampler": "tpe"}
    at_once = drain(study(tmp_path, trials=4, sampler="tpe"), 1)
    assert at_once == drain(study(tmp_path, **files), 1, again=True)


def test_a_shared_training_that_fails_fails_for_all(tmp_path: Path) -> None:
    well = study(tmp_path)
    drain(well, 2)
    wholes = [row for row in well.ledger.trainings(stage="search") if row["job"]["schedule"]["epochs"] == 3]
    ill = study(tmp_path)
    drain(ill, 2, lose=wholes[0]["training"])
    rate = well.ledger.trials(config=wholes[0]["config"])[0]["params"]
    trials = ill.ledger.trials()
    hit = {trial["arm"]: trial["state"] for trial in trials if trial["params"] == rate}
    assert hit["tenth"] == FAILED and hit["whole"] == FAILED
    assert {trial["state"] for trial in trials} <= set(FINAL)


def test_a_larger_budget_takes_on_trials_whose_only_rung_is_anothers(tmp_path: Path) -> None:
    files = {"storage": sqlite_url(tmp_path / "study.db"), "trials": 4}
    drain(study(tmp_path, **files), 2)
    here = study(tmp_path, **files, stopping="none")
    drain(here, 2)
    assert [trial["state"] for trial in here.ledger.trials()] == [COMPLETE] * 3 * 4


def test_both_arms_pay_for_what_they_share(tmp_path: Path) -> None:
    here = study(tmp_path)
    drain(here, 1)
    trials = here.ledger.trials()
    spent = tables._spent(here.plan, here.sharing, trials, here.ledger.trainings())
    for trial in trials:
        rungs = {"tenth": (3,), "third": (3, 10), "whole": (3, 10, 30)}[trial["arm"]]
        climbed = spent[trial["trial"]]["seconds"]
        assert 1 <= climbed <= len(rungs) and spent[trial["trial"]]["epochs"] == sum(rungs[: int(climbed)])
        assert spent[trial["trial"]]["seeds"] == (trial["state"] == COMPLETE)


def test_a_stopped_trial_knows_at_once_that_another_arm_trains_it_further(tmp_path: Path) -> None:
    """And decides as a driver that was started again at that moment would: both read the same ledger."""
    space = SearchSpace(
        LENGTHS.fixed, {"whole": {"epochs": 30}, "short": {"epochs": 10, "temperature_lr": 0.1}}, LENGTHS.tuned,
        try_first=tuple({"temperature_lr": rate} for rate in (0.3, 0.2, 0.9)),
    )  # fmt: skip
    made = plan(tmp_path, space=space, **{**WORDS, "trials": 12, "storage": sqlite_url(tmp_path / "study.db")})
    here = Queue(made, Ledger(made.request.storage, "study"))
    first = here.take()
    assert first is not None
    here.done(first["training"], pretend(first["job"]), "", epochs=3, seconds=1.0)
    assert [trial["state"] for trial in here.ledger.trials(arm="whole")] == [STOPPED]
    longer = here.take()
    assert longer is not None and longer["job"]["schedule"]["epochs"] == 10
    asked = dict(here.halving["whole"].asked)
    assert asked == {"whole-000": 10} and [t["state"] for t in here.ledger.trials(arm="whole")] == [WAITING]
    assert Queue(made, here.ledger).halving["whole"].asked == asked


def test_what_a_training_decides_is_as_the_ledger_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while a stopped trial was promoted: its first seed ends, its second runs, so nothing is decided."""
    made = plan(tmp_path, space=SearchSpace(LENGTHS.fixed, {"whole": {"epochs": 30}}, LENGTHS.tuned),
                **{**WORDS, "trials": 9, "search_seeds": 2, "storage": sqlite_url(tmp_path / "study.db")})  # fmt: skip
    here = Queue(made, Ledger(made.request.storage, "study"))

    def killed(arm: Arm, trial: Row, epochs: int) -> None:
        here.ledger.add_trainings(here.halving[arm.name].jobs(trial["words"], epochs))
        raise KeyboardInterrupt

    queue_rung = here._queue_rung
    monkeypatch.setattr(
        here, "_queue_rung", lambda arm, trial, epochs: (killed if epochs == 30 else queue_rung)(arm, trial, epochs)
    )
    with pytest.raises(KeyboardInterrupt):
        drain(here, 1)
    again = Queue(made, here.ledger)
    one, two = again.take(), again.take()
    assert one is not None and two is not None and one["config"] == two["config"]
    assert again.done(two["training"], pretend(two["job"]), "", epochs=30, seconds=1.0) == []
    assert [trial["state"] for trial in again.ledger.trials(config=one["config"])] == [WAITING]
