"""The queue over the ledger, without Ray: budgets, failures, choices, and kills at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from absld_search.search import choices, fronts
from absld_search.search.arm_study import ArmStudy
from absld_search.search.choices import choice, values_of
from absld_search.search.ledger import COMPLETE, FAILED, RUNNING, WAITING, Ledger, Row, sqlite_url
from absld_search.search.optuna_storage import open_storage
from absld_search.search.plan import Plan
from absld_search.search.preflight import check
from absld_search.search.queue import Queue
from absld_search.search.samplers import EXTRAS, SAMPLERS
from absld_search.search.study import held
from absld_search.space import Choice, LogUniform, SearchSpace, Teachers, Uniform
from absld_search.words import UsageError
from tests.search.requests import TAILS, TWO_ARMS, plan, pretend, request

DRIVER = """
import sys, time
from pathlib import Path
from tests.search.requests import plan, pretend
from tests.search.test_queue import open_queue
made = plan(Path(sys.argv[1]), trials=3)
queue = open_queue(made)
evaluated = Path(sys.argv[1]) / "evaluated"
while (row := queue.take()) is not None:
    done = evaluated / row["training"]
    if not done.exists():  # a worker's result on disk outlives its driver
        time.sleep(0.01)
        done.touch()
        with open(Path(sys.argv[1]) / "log", "a") as log:
            log.write(row["training"] + chr(10))
    queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)
"""


def open_queue(made: Plan) -> Queue:
    return Queue(made, Ledger(made.request.storage, made.request.study))


def drain(queue: Queue, lose: set[int] = frozenset()) -> list[Row]:  # type: ignore[assignment]
    """Run the queue dry; the trainings whose turn is in `lose` fail."""
    seen = []
    while (row := queue.take()) is not None:
        metrics = None if len(seen) in lose else pretend(row["job"])
        queue.done(row["training"], metrics, "" if metrics else "nonfinite:loss@1", epochs=2, seconds=0.1)
        seen.append(row)
    assert queue.finished()
    return seen


def test_equal_budgets_then_fresh_seeds_for_each_choice(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path))
    seen = drain(queue)
    assert [row["stage"] for row in seen] == ["search"] * 5 + ["confirm"] * 4
    assert len(queue.ledger.trials(arm="dual")) == 4 and len(queue.ledger.trials(arm="rslad")) == 1
    confirm = [(row["config"], row["seed"]) for row in seen if row["stage"] == "confirm"]
    assert {seed for _, seed in confirm} == {1000, 1001}, "the same fresh seeds in every arm"
    assert all(row["job"]["test"] for row in seen if row["stage"] == "confirm")
    assert not any(row["job"]["test"] for row in seen if row["stage"] == "search")


def test_papers_defaults_come_first(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path))
    drain(queue)
    assert queue.ledger.trials(arm="dual")[0]["params"] == {"temperature_lr": 0.1}


def test_the_first_point_is_what_a_training_takes_without_a_word(tmp_path: Path) -> None:
    """Knobs of the method, options beside it, the schedule, and what the workload has of its own."""
    tuned = {
        "averaging_decay": Uniform(0.6, 0.95), "learning_rate": LogUniform(0.1, 1.0),
        "method": Choice(("sat", "absld")), "batch_size": Choice((64, 128)),
        "schedule": Choice(("wsd", "step")), "momentum": Uniform(0.0, 0.5),
    }  # fmt: skip
    (arm,) = plan(tmp_path, space=SearchSpace(fixed={"averaging": "ema"}, arms={"one": {}}, tuned=tuned)).arms
    first = {"averaging_decay": 0.85, "learning_rate": 0.5, "method": "absld", "batch_size": 128, "schedule": "step"}
    assert arm.first == (first,), "momentum 0.9 is no place in the space"
    rates = SearchSpace(fixed={"method": "cfol"}, arms={"one": {}}, tuned={"sampling_lr": LogUniform(1e-8, 1e-1)})
    (arm,) = plan(tmp_path, space=rates, study="rates").arms
    assert arm.first == ({"sampling_lr": 2.5e-3},), "the workload's own"


def test_more_trials_and_seeds_extend_and_repeat_nothing(tmp_path: Path) -> None:
    first = {row["training"] for row in drain(open_queue(plan(tmp_path)))}
    assert drain(open_queue(plan(tmp_path))) == []
    more = drain(open_queue(plan(tmp_path, trials=6, seeds=3)))
    assert len([row for row in more if row["stage"] == "search"]) == 2
    assert not first & {row["training"] for row in more}
    trials = Ledger(plan(tmp_path).request.storage, "study").trials(arm="dual")
    rates = {trial["params"]["temperature_lr"] for trial in trials}
    assert len(rates) == 6, "a resumed sampler does not repeat its draws"


def test_a_failed_training_is_told_and_never_chosen(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path))
    drain(queue, lose={0})
    failed, *others = queue.ledger.trials(arm="dual")
    assert failed["state"] == FAILED and failed["reason"] == "nonfinite:loss@1" and failed["objectives"] is None
    assert all(trial["state"] == COMPLETE for trial in others)
    states = [trial.state.name for trial in queue.studies["dual"].study.get_trials()]
    assert states == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    chosen = choice(queue.plan, queue.ledger.trials(arm="dual"))
    assert chosen is not None and chosen["trial"] != failed["trial"]


def test_an_arm_of_failures_confirms_nothing(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path, trials=2))
    seen = drain(queue, lose={0, 1, 2})
    assert len(seen) == 3 and not queue.ledger.trainings(stage="confirm")


def test_the_tail_of_the_classes_is_what_is_searched_on(tmp_path: Path) -> None:
    assert plan(tmp_path).objectives == {"robust_cvar": "max", "robust_accuracy": "max"}
    few = plan(tmp_path, workload="cifar10-smoke", study="few")
    many = plan(tmp_path, workload="cifar100-smoke", study="many")
    assert list(few.objectives)[0] == "robust_cvar"
    assert list(many.objectives) == ["worst_tenth_robust_accuracy", "robust_accuracy"]
    asked = SearchSpace(arms={"a": {}}, objectives={"robust_cvar": "max"})
    assert plan(tmp_path, space=asked, workload="cifar100-smoke", study="own").objectives == {"robust_cvar": "max"}


@pytest.mark.parametrize("name", TAILS)
def test_a_search_on_any_form_of_the_worst_class_ends_in_a_choice(tmp_path: Path, name: str) -> None:
    space = replace(TWO_ARMS, objectives={name: "max", "robust_accuracy": "max"})
    queue = open_queue(plan(tmp_path, space=space))
    seen = drain(queue)
    assert [row["stage"] for row in seen] == ["search"] * 5 + ["confirm"] * 4
    trials = queue.ledger.trials(arm="dual")
    chosen = choice(queue.plan, trials)
    assert chosen is not None and set(chosen["objectives"]) == {name, "robust_accuracy"}
    told = [trial.values for trial in queue.studies["dual"].study.get_trials()]
    assert told == [[trial["objectives"][name], trial["objectives"]["robust_accuracy"]] for trial in trials]


def test_search_seeds_are_averaged(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path, trials=1, search_seeds=3))
    drain(queue)
    (trial,) = queue.ledger.trials(arm="dual")
    rows = queue.ledger.trainings(config=trial["config"], stage="search")
    values = [row["metrics"]["robust_accuracy"] for row in rows]
    assert len(set(values)) == 3
    assert trial["objectives"]["robust_accuracy"] == pytest.approx(sum(values) / 3)


def test_fronts_and_optuna_agree(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path))
    drain(queue)
    trials = queue.ledger.trials()
    joint, per_arm = choices.front_trials(queue.plan, trials)
    for arm, study in queue.studies.items():
        best = {f"{arm}-{trial.number:03d}" for trial in study.study.best_trials}
        assert best == {name for name in per_arm if name.startswith(arm)}
    mask = fronts.non_dominated(values_of(queue.plan, trials), ["max", "max"])
    assert joint == {trial["trial"] for trial, on in zip(trials, mask, strict=True) if on}


def test_the_same_configuration_in_two_arms_is_trained_once(tmp_path: Path) -> None:
    twins = SearchSpace(fixed={}, arms={"a": {"temperature_lr": 0.1}, "b": {"temperature_lr": "0.1"}})
    queue = open_queue(plan(tmp_path, space=twins))
    assert len(drain(queue)) == 1 + 2
    assert [trial["state"] for trial in queue.ledger.trials()] == [COMPLETE, COMPLETE]


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_fills_a_conditional_space(tmp_path: Path, sampler: str) -> None:
    pytest.importorskip(EXTRAS.get(sampler, "optuna"))
    space = SearchSpace(
        fixed={"method": "absld"},
        arms={"one": {}},
        tuned={
            "coupling": Choice(("dual", "mixed")),
            "coupling_strength": Uniform(0.1, 1.0, when={"coupling": "mixed"}),
            "temperature_lr": LogUniform(0.01, 1),
            "teacher": Teachers(),
        },
    )
    queue = open_queue(plan(tmp_path, space=space, trials=8, sampler=sampler))
    drain(queue)
    trials = queue.ledger.trials()
    assert len(trials) == 8
    for trial in trials:
        params = trial["params"]
        assert ("coupling_strength" in params) == (params["coupling"] == "mixed")
        assert params["teacher"] in queue.plan.setting.teachers and 0.01 <= params["temperature_lr"] <= 1


def test_only_choices_become_a_grid(tmp_path: Path) -> None:
    tuned = {"teacher": Teachers(), "coupling": Choice(("dual", "shared"))}
    space = SearchSpace(fixed={}, arms={"one": {}}, tuned=tuned)
    queue = open_queue(plan(tmp_path, space=space, trials=99))
    drain(queue)
    asked = [(t["params"]["teacher"], t["params"]["coupling"]) for t in queue.ledger.trials()]
    assert len(asked) == len(set(asked)) == 4 * 2


def test_zombies_of_a_dead_driver_are_reaped(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path))
    row = queue.take()
    queue.studies["dual"].study.ask()  # killed between Optuna's ask and the ledger
    again = open_queue(plan(tmp_path))
    assert row is not None and again.ledger.trainings(training=row["training"])[0]["state"] == WAITING
    drain(again)
    states = [trial.state.name for trial in again.studies["dual"].study.get_trials()]
    assert sorted(states) == ["COMPLETE"] * 4 + ["FAIL"]
    assert again.ledger.trainings(training=row["training"])[0]["attempts"] == 2


def test_killed_between_ledger_and_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue(plan(tmp_path))
    row = queue.take()
    assert row is not None
    with monkeypatch.context() as patched:
        patched.setattr(ArmStudy, "tell", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)
    again = open_queue(plan(tmp_path))
    assert [t.state.name for t in again.studies["dual"].study.get_trials()][0] == "COMPLETE"


def test_tell_refuses_what_is_not_finite(tmp_path: Path) -> None:
    made = plan(tmp_path)
    study = ArmStudy(made, made.arms[0], optuna.storages.InMemoryStorage())
    for value in (float("nan"), float("inf")):
        number, _ = study.ask()
        study.tell(number, {"robust_cvar": value, "robust_accuracy": 0.5})
        assert study.study.get_trials()[number].state.name == "FAIL"
    study.tell(number, {"robust_cvar": 0.1, "robust_accuracy": 0.5})  # told already: no error


def test_kill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGKILL at random moments, then the same command again, until done."""
    (tmp_path / "evaluated").mkdir()
    random.seed(0)
    kills = 0
    for _ in range(60):
        process = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], cwd=Path(__file__).parents[2])
        try:
            process.wait(timeout=random.uniform(2.5, 5.0) if kills < 6 else 300)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    made = plan(tmp_path, trials=3)
    ledger = Ledger(made.request.storage, "study")
    assert {row["state"] for row in ledger.trainings()} == {COMPLETE}
    assert len(ledger.trials(arm="dual")) == 3 and len(ledger.trials(arm="rslad")) == 1
    logged = (tmp_path / "log").read_text().split()
    assert len(logged) == len(set(logged)) == len(ledger.trainings()) == 4 + 4
    for arm in ("dual", "rslad"):
        study = optuna.load_study(study_name=f"study.{arm}", storage=open_storage(made.request.storage))
        states = [trial.state.name for trial in study.get_trials()]
        assert RUNNING not in states and states.count(COMPLETE) == len(ledger.trials(arm=arm))


REFUSED = [
    (dict(set={"learning_rate": "0.3"}), "workload.*|learning_rate = not set in arm"),
    (dict(search_seeds=2), "search_seeds"),
]


@pytest.mark.parametrize(("changed", "field"), REFUSED)
def test_another_study_under_the_same_name_is_refused(tmp_path: Path, changed: dict, field: str) -> None:
    drain(open_queue(plan(tmp_path)))
    check(plan(tmp_path, trials=9, seeds=5))
    with pytest.raises(UsageError, match=field):
        check(plan(tmp_path, **changed))


def test_a_newer_schema_is_not_guessed_at(tmp_path: Path) -> None:
    made = plan(tmp_path)
    ledger = Ledger(made.request.storage, "study")
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE absld_facts SET value = '\"99\"' WHERE key = 'schema_version'")
    with pytest.raises(UsageError, match="schema version 99"):
        Ledger(made.request.storage, "study")


def test_two_studies_share_a_database(tmp_path: Path) -> None:
    url = request(tmp_path, "one").storage
    first, second = (open_queue(plan(tmp_path, study=name, storage=url)) for name in ("one", "two"))
    drain(first)
    assert second.ledger.trials() == [] and len(drain(second)) == 9


WRONG = [
    (dict(set={"temperature_lr": "1"}), "--set temperature_lr"),
    (dict(set={"coupling": "dual"}), "--set coupling"),
    (dict(set={"epoch": "3"}), "Did you mean 'epochs'"),
    (dict(sampler="tpee"), "Did you mean 'tpe'"),
    (dict(trials=0), "--trials must be at least 1"),
    (dict(seeds=0), "--seeds must be at least 1"),
    (dict(max_concurrent=0), "--max-concurrent"),
    (dict(cpus_per_trial=4096), "--cpus-per-trial 4096: this machine has"),
    (dict(cpus_per_trial=0), "--cpus-per-trial must be greater"),
    (dict(gpus_per_trial=-1), "--gpus-per-trial must be at least 0"),
    (dict(gpus_per_trial=64), "--gpus-per-trial 64"),
    (dict(storage="sqlite:////proc/nothing/study.db", study="x"), "--storage: nothing can be written in /proc"),
    (dict(storage="nonsense"), "--storage"),
    (dict(storage="postgresql+psycopg://nobody@localhost:1/none"), "--storage"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[str(message) for _, message in WRONG])
def test_bad_requests_are_refused_before_anything_is_created(tmp_path: Path, words: dict, message: str) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match=message):
        check(plan(tmp_path, **words))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


SPACES = [
    (dict(arms={"a": {"coupling": "duall"}}), "arm 'a'.*Did you mean 'dual'"),
    (dict(arms={"a": {}}, objectives={"robust_acuracy": "max"}), "Did you mean 'robust_accuracy'"),
    (dict(arms={"a": {}}, objectives={"robust_nsd": "max"}), "better at its min"),
    (dict(arms={"a": {}}, objectives={"cw_accuracy": "max"}), "'cw_accuracy' is unknown"),  # measured on test only
    (dict(arms={"a": {}}, tuned={"coupling": Choice(("dual", "duall", "mixed"))}), "Did you mean 'dual'"),
    (dict(arms={"a": {}}, tuned={"initial_temperature_adv": LogUniform(0.1, 1)}), "outside its bounds"),
    (dict(arms={"a": {}}, tuned={"temperature_lr": Uniform(-1, 1)}), "at least 0"),
    (dict(arms={"a": {}}, tuned={"learning_rat": Uniform(0.1, 1)}), "tuned, in arm 'a': .*mean 'learning_rate'"),
    (dict(arms={"a": {}}, tuned={"averaging": Uniform(0.1, 1)}), "tuned, in arm 'a': averaging"),
    (dict(fixed={"epoch": 3}, arms={"a": {}}), "fixed, in arm 'a': parameter 'epoch'.*mean 'epochs'"),
    (dict(arms={"b": {"coupling": "dual"}, "a": {"epoch": 3}}), "^arm 'a': parameter 'epoch'.*mean 'epochs'"),
]


@pytest.mark.parametrize(("words", "message"), SPACES, ids=[message for _, message in SPACES])
def test_a_space_that_no_training_could_run_is_refused(tmp_path: Path, words: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(tmp_path, space=SearchSpace(**{"fixed": {}, **words}))


def test_an_undefined_objective_fails_the_trial(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path, trials=1))
    row = queue.take()
    assert row is not None
    metrics = {name: value for name, value in pretend(row["job"]).items() if name != "robust_accuracy"}
    (trial,) = queue.done(row["training"], metrics, "", epochs=2, seconds=0.0)
    assert trial["state"] == FAILED and trial["reason"] == "nonfinite:robust_accuracy@2"


def test_a_point_asked_for_and_never_written_down_is_tried_again(tmp_path: Path) -> None:
    """Killed between Optuna's ask and the ledger: the paper's defaults must not get lost, nor a point of a grid."""
    queue = open_queue(plan(tmp_path))
    assert queue.studies["dual"].ask()[1] == {"temperature_lr": 0.1}
    again = open_queue(plan(tmp_path))
    drain(again)
    asked = [trial["params"]["temperature_lr"] for trial in again.ledger.trials(arm="dual")]
    assert len(asked) == 4 and asked.count(0.1) == 1
    grid = SearchSpace(fixed={}, arms={"one": {}}, tuned={"teacher": Teachers()})
    queue = open_queue(plan(tmp_path, space=grid, study="grid"))
    queue.studies["one"].ask()
    again = open_queue(plan(tmp_path, space=grid, study="grid"))
    drain(again)
    teachers = [trial["params"]["teacher"] for trial in again.ledger.trials(arm="one")]
    assert sorted(teachers) == sorted(again.plan.setting.teachers)


def test_a_kill_while_a_point_is_given_again_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two things that are written when a trial that nobody wrote down is dropped."""
    (study := open_queue(plan(tmp_path)).studies["dual"]).ask()
    written = []

    def once(original: Any) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            written.append(original)
            if len(written) > 1:
                raise KeyboardInterrupt
            return original(*words, **more)

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in ("enqueue_trial", "tell"):
            patch.setattr(optuna.Study, name, once(getattr(optuna.Study, name)))
        study.drop(0)
    again = open_queue(plan(tmp_path))
    drain(again)
    asked = [trial["params"]["temperature_lr"] for trial in again.ledger.trials(arm="dual")]
    assert len(asked) == 4 and asked.count(0.1) == 1


def test_points_that_are_given_twice_count_once(tmp_path: Path) -> None:
    """Else Sobol points, which are counted from the first that was not given, would begin too late and repeat."""

    def proposed(study: str, *given: float) -> list[float]:
        space = replace(TWO_ARMS, try_first=tuple({"temperature_lr": each} for each in given))
        queue = open_queue(plan(tmp_path, space=space, study=study, sampler="qmc", trials=6))
        drain(queue)
        return [trial["params"]["temperature_lr"] for trial in queue.ledger.trials(arm="dual")]

    twice = proposed("twice", 0.3, 0.1, 0.3, 0.3000001)
    assert twice == proposed("once", 0.3) and len(set(twice)) == 6


def test_a_grid_beyond_the_budget_is_searched_not_cut(tmp_path: Path) -> None:
    tuned = {"teacher": Teachers(), "coupling": Choice(("dual", "shared", "product"))}
    made = plan(tmp_path, space=SearchSpace(fixed={}, arms={"one": {}}, tuned=tuned), trials=6)
    (arm,) = made.arms
    assert arm.trials == 6 and arm.first == ({"teacher": "trades-wide", "coupling": "dual"},)


def test_one_lost_seed_fails_the_trial(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path, trials=1, search_seeds=3))
    drain(queue, lose={1})
    (trial,) = queue.ledger.trials(arm="dual")
    assert trial["state"] == FAILED and trial["objectives"] is None, "a mean over the survivors would flatter"


def told_of(queue: Queue, trial: Row) -> list[list[float] | None]:
    """What Optuna was told of a trial, one after the other; None: that it failed."""
    return [one.values for one in queue.studies[trial["arm"]]._told(trial["number"])]


@pytest.mark.parametrize("stopping", ["none", "mo-asha"])
def test_a_kill_before_optuna_hears_of_the_second_attempt_loses_nothing(
    tmp_path: Path, stopping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, Any] = {"stopping": stopping, "set": {"epochs": "9"}}
    drain(open_queue(plan(tmp_path, **words)), lose={1})
    with held(plan(tmp_path, retry_failed=True, **words)) as started, monkeypatch.context() as patch:

        def killed(*words: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(ArmStudy, "_tell_again", killed)
        with pytest.raises(KeyboardInterrupt):
            drain(started.queue)
        (trial,) = [one for one in started.ledger.trials() if told_of(started.queue, one) == [None]]
        assert trial["state"] != FAILED
    again = open_queue(plan(tmp_path, **words))
    assert len(told_of(again, trial)) == 2 and told_of(again, trial)[-1], "the next start tells it"
    assert told_of(open_queue(plan(tmp_path, **words)), trial) == told_of(again, trial), "once"


@pytest.mark.parametrize("stopping", ["none", "mo-asha"])
def test_what_failed_is_trained_anew_where_that_is_asked(tmp_path: Path, stopping: str) -> None:
    words: dict[str, Any] = {"stopping": stopping, "set": {"epochs": "9"}}
    drain(open_queue(plan(tmp_path, **words)), lose={1, 2, 4})
    folders = tmp_path / "study/trainings"
    with held(plan(tmp_path, **words)) as started:
        assert not drain(started.queue), "what has failed stays so"
        failed = [row["training"] for row in started.ledger.trainings(state=FAILED)]
    assert len(failed) == 3
    (folders / failed[0]).mkdir(parents=True)
    with held(plan(tmp_path, retry_failed=True, **words)) as started:
        assert not (folders / failed[0]).exists(), "begun anew, and not gone on with"
        again = [row["training"] for row in drain(started.queue)]
        assert again[: len(failed)] == failed, "before anything new"
        assert not started.ledger.trainings(state=FAILED) and not started.ledger.trials(state=FAILED)
        for trial in started.ledger.trials():
            last = told_of(started.queue, trial)[-1]
            assert last, "Optuna knows its values"
            if trial["objectives"]:
                assert last == started.queue.studies[trial["arm"]]._ordered(trial["objectives"])


def test_an_arm_can_be_added_but_not_removed(tmp_path: Path) -> None:
    drain(open_queue(plan(tmp_path)))
    more = SearchSpace(TWO_ARMS.fixed, {**TWO_ARMS.arms, "shared": {"coupling": "shared"}}, TWO_ARMS.tuned)
    check(plan(tmp_path, space=more))
    fewer = SearchSpace(TWO_ARMS.fixed, {"dual": {"coupling": "dual"}}, TWO_ARMS.tuned)
    with pytest.raises(UsageError, match="arm 'rslad' that the space has no more"):
        check(plan(tmp_path, space=fewer))


def test_some_arms_of_a_space_are_asked_first_and_the_others_later(tmp_path: Path) -> None:
    some = open_queue(plan(tmp_path, arms=("rslad",)))
    drain(some)
    assert {trial["arm"] for trial in some.ledger.trials()} == {"rslad"}
    before = {row["training"] for row in some.ledger.trainings()}
    made = plan(tmp_path, arms=("rslad", "dual"))
    assert [arm.name for arm in made.arms] == ["dual", "rslad"], "in the order of the space"
    check(made)
    whole = open_queue(made)
    drain(whole)
    rows = whole.ledger.trainings()
    assert before < {row["training"] for row in rows} and all(row["attempts"] == 1 for row in rows), "nothing twice"
    with pytest.raises(UsageError, match="arm 'dual' that --arms leaves out"):
        check(plan(tmp_path, arms=("rslad",)))
    with pytest.raises(UsageError, match="--arms 'rsald' is unknown. Did you mean 'rslad'"):
        plan(tmp_path, arms=("rsald",))


def test_teachers_that_a_study_can_ask_for(tmp_path: Path) -> None:
    assert plan(tmp_path).teachers() == ["trades-wide"]
    every = SearchSpace(fixed={}, arms={"one": {}}, tuned={"teacher": Teachers()})
    assert len(plan(tmp_path, space=every).teachers()) == 4
    none = SearchSpace(fixed={"method": "sat"}, arms={"one": {}})
    assert plan(tmp_path, space=none).teachers() == []


def in_the_confirm_stage(queue: Queue) -> None:
    """The search's five trainings have ended, and one of the confirm stage."""
    for _ in range(6):
        row = queue.take()
        assert row is not None
        queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)


def test_fewer_seeds_start_nothing_that_was_only_waiting(tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path, seeds=4))
    in_the_confirm_stage(queue)
    again = open_queue(plan(tmp_path, seeds=2))
    assert {row["seed"] for row in drain(again)} <= {1000, 1001}


def test_more_trials_come_before_the_seeds_of_a_choice_that_may_change(tmp_path: Path) -> None:
    """Interrupted in the confirm stage, then asked for more trials."""
    queue = open_queue(plan(tmp_path, seeds=2))
    in_the_confirm_stage(queue)
    again = open_queue(plan(tmp_path, seeds=2, trials=8))
    waiting = again.ledger.trainings(stage="confirm", state=WAITING)
    rslad = again.ledger.trials(arm="rslad")[0]["config"]
    assert {row["config"] for row in waiting} == {rslad}, "an arm whose search is over keeps its own"
    seen = drain(again)
    dual = [row["stage"] for row in seen if row["config"] != rslad]
    assert dual[:4] == ["search"] * 4 and set(dual[4:]) == {"confirm"} and len(dual[4:]) <= 2


def test_nothing_answers_at_the_address(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--address 127.0.0.1:1: nothing answers there"):
        check(plan(tmp_path, address="127.0.0.1:1"))


def test_the_end_of_a_training_does_not_read_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while the last of a search run, when nothing can be asked any more, and once for each arm's choice."""
    queue = open_queue(plan(tmp_path, trials=6, seeds=3))
    looks: list[dict[str, Any]] = []
    trials = queue.ledger.trials
    monkeypatch.setattr(queue.ledger, "trials", lambda **equal: looks.append(equal) or trials(**equal))
    taken = []
    while row := queue.take():
        taken.append(row)
    while taken or (row := queue.take()):
        row = taken.pop() if taken else row
        queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)
        queue.ready()
    whole = [equal for equal in looks if not {"trial", "config"} & equal.keys()]
    assert sorted(equal["arm"] for equal in whole) == ["dual", "rslad"]
    assert len(queue.ledger.trainings(stage="confirm", state=COMPLETE)) == 6


def test_who_asks_again_while_nothing_has_ended_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune asks many times a second while the last trainings run; a look reads every trial of the study."""
    queue = open_queue(plan(tmp_path, trials=2, seeds=1))
    taken = []
    while row := queue.take():
        taken.append(row)
    looks: list[int] = []
    look = queue._next
    monkeypatch.setattr(queue, "_next", lambda: looks.append(1) or look())
    assert queue.take() is None and not looks and not queue.finished()
    queue.put_back(taken[0]["training"], "the machine is gone")
    again = queue.take()
    assert again is not None and again["training"] == taken[0]["training"] and looks == [1]
    for row in taken:
        queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)
    assert queue.take() is not None, "the arms' choices are to be confirmed"


def test_a_trial_asks_the_ledger_for_so_much_and_no_more(tmp_path: Path) -> None:
    """docs/scaling.md counts on it; the same for the thirtieth trial as for the first."""
    space = SearchSpace({"method": "absld"}, {"one": {}}, {"temperature_lr": LogUniform(1e-2, 1.0)})
    made = plan(tmp_path, space=space, trials=40, seeds=1, sampler="random", storage=sqlite_url(tmp_path / "study.db"))
    queue, words = open_queue(made), Counter[str]()
    sa.event.listen(
        queue.ledger.engine, "before_cursor_execute", lambda c, cursor, text, *_: words.update([text.split()[0]])
    )
    for _ in range(2):
        words.clear()
        for _ in range(15):
            row = queue.take()
            assert row is not None
            queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)
        assert words == {"SELECT": 15 * 8, "INSERT": 15 * 3, "UPDATE": 15 * 4}
