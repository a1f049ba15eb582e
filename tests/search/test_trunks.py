"""Rungs of a study with schedule=wsd: a promoted training goes on from its trunk, and costs what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from absld_search.core import evaluation, teacher_making
from absld_search.core.config import TrialConfig
from absld_search.core.rungs import at, paid, run_rung, whole_of
from absld_search.search import costs
from absld_search.search.ledger import COMPLETE, STOPPED, Ledger
from absld_search.search.queue import Queue
from absld_search.space import Choice, LogUniform, SearchSpace
from absld_search.words import UsageError
from tests.search.requests import plan

TUNED = {"temperature_lr": LogUniform(1e-2, 1.0)}
WSD = {"method": "absld", "schedule": "wsd", "epochs": 9}


def test_a_study_trains_no_epoch_of_a_trunk_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trials on rungs of 1, 3 and 9 epochs, trained as the worker trains them."""
    monkeypatch.setattr(evaluation, "STEPS", 1)
    space = SearchSpace(fixed=WSD, arms={"one": {}}, tuned=TUNED)
    made = plan(tmp_path, space=space, trials=3, seeds=1, stopping="mo-asha", storage="sqlite://")
    teacher_making.ensure_teacher(made.setting, made.setting.teacher, "cpu", say=lambda line: None)
    here, trained, lengths = Queue(made, Ledger("sqlite://", "study")), dict[str, list[int]](), dict[str, int]()
    while (row := here.take()) is not None:
        config = TrialConfig.from_dict(row["job"])
        epochs: list[int] = []
        metrics = run_rung(
            whole_of(config), config.schedule.epochs, tmp_path / "trainings", lambda n, _, seen=epochs: seen.append(n)
        )
        if row["stage"] != "confirm":
            trained.setdefault(row["config"], []).append(len(epochs))
            lengths[row["training"]] = costs.epochs(row, (1, 3, 9))
            assert len(epochs) == lengths[row["training"]]
        here.done(row["training"], metrics, "", epochs=config.schedule.epochs, seconds=1.0)
    trials = here.ledger.trials()
    assert sorted(trial["state"] for trial in trials) == [COMPLETE, STOPPED, STOPPED]
    (best,) = [trial for trial in trials if trial["state"] == COMPLETE]
    config = made.config(best["words"], 0)
    assert sum(trained[best["config"]]) == sum(paid(config, (1, 3, 9))) < 1 + 3 + 9


def test_a_rung_says_of_what_it_is_one() -> None:
    for words in ({"schedule": "wsd"}, {"schedule": "step"}):
        config = TrialConfig.from_words({**words, "epochs": 9}, "digits-smoke")
        assert whole_of(config) == config and at(config, 9) == config
        branch = at(config, 3)
        assert at(whole_of(branch), 3) == branch
    assert whole_of(at(TrialConfig.from_words({"schedule": "wsd"}, "digits"), 3)).schedule.epochs == 30


def test_a_rung_that_never_sees_the_method_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    space = SearchSpace(
        fixed={"schedule": "wsd"}, arms={"frl": {"method": "frl"}}, tuned={"learning_rate": Choice((0.1, 0.2))}
    )
    words = {"workload": "digits", "trials": 9, "storage": "sqlite://"}
    with pytest.raises(UsageError, match="so a rung at 3 never sees it"):
        plan(
            tmp_path,
            space=SearchSpace(space.fixed, space.arms, {"learning_rate": LogUniform(0.1, 1)}),
            stopping="mo-asha",
            **words,
        )
    plan(tmp_path, space=space, **words)
