"""Successive halving: the order of a rung, what is promoted, and that nothing stopped is ever on a front."""

from __future__ import annotations

import math
import random
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from absld_search.search import choices, constraints, describe, fronts, scheduler
from absld_search.search.arm_study import ArmStudy, Seen
from absld_search.search.ledger import COMPLETE, FAILED, INFEASIBLE, STOPPED, Ledger
from absld_search.search.plan import Plan
from absld_search.search.preflight import check_storage
from absld_search.search.queue import Queue
from absld_search.search.samplers import EXTRAS, SAMPLERS
from absld_search.search.scheduler import Outcome, Rules, promotion
from absld_search.space import Choice, LogUniform, SearchSpace, Uniform
from absld_search.words import UsageError
from tests.search.requests import TAILS, plan, pretend

MAX2 = ("max", "max")
RULES = Rules("mo-asha", (3, 10, 30), MAX2)
ONE_ARM = SearchSpace(fixed={"method": "absld"}, arms={"one": {}}, tuned={"temperature_lr": LogUniform(1e-2, 1.0)})
LONG = {"set": {"epochs": "18"}, "stopping": "mo-asha", "seeds": 1}


def ordered(outcomes: list[Outcome], rules: Rules) -> list[str]:
    return [place.trial for place in scheduler.ordered(outcomes, rules)]


def test_rungs_are_divided_from_the_top(tmp_path: Path) -> None:
    def rungs(stopping: str, epochs: int, **words: int) -> tuple[int, ...]:
        made = plan(tmp_path, space=ONE_ARM, stopping=stopping, set={"epochs": str(epochs)}, **words)
        return made.rungs(made.arms[0])

    assert rungs("mo-asha", 30) == (3, 10, 30)
    assert rungs("mo-asha", 300, grace=10) == (11, 33, 100, 300)
    assert rungs("asha", 9, eta=2, grace=2) == (2, 4, 9)
    assert rungs("none", 30) == (30,) and rungs("asha", 1) == (1,)
    assert rungs("asha", 10) == (3, 10) and rungs("asha", 2) == (2,), "in one epoch the rate never drops"
    with pytest.raises(UsageError, match="--grace: a rung of 1 epoch ends before its learning rate drops"):
        rungs("asha", 9, eta=2, grace=1)
    wsd = plan(tmp_path, space=ONE_ARM, stopping="asha", set={"epochs": "9", "schedule": "wsd"}, eta=2, grace=1)
    assert wsd.rungs(wsd.arms[0]) == (1, 2, 4, 9)
    for words in (dict(eta=1), dict(grace=0), dict(grace=31)):
        with pytest.raises(UsageError, match="--eta|--grace"):
            rungs("asha", 30, **words)


def test_a_rung_is_ordered_by_rank_and_then_by_the_net() -> None:
    line = [Outcome(f"f{i}", 3, (x, 1 - x)) for i, x in enumerate((0.0, 0.1, 0.45, 0.9, 1.0))]
    behind = [Outcome("b", 3, (0.0, 0.5)), Outcome("lost", 3, None), Outcome("nan", 3, (float("nan"), 1.0))]
    assert ordered([*behind, *line], RULES) == ["f4", "f0", "f2", "f1", "f3", "b"]
    scalar = Rules("asha", (3, 10, 30), MAX2)
    assert ordered([*behind, *line], scalar) == ["f4", "f3", "f2", "f1", "b", "f0"]


def test_a_spread_that_is_small_by_ignorance_wins_nothing() -> None:
    """An untrained network treats all classes alike: its NSD would put it on every front."""
    rules = Rules("mo-asha", (3, 10), ("max", "min"), held_back=frozenset({1}), floor=0.2)
    naive = [Outcome("untrained", 3, (0.05, 0.0), accuracy=0.1)]
    trained = [Outcome("good", 3, (0.4, 0.3), accuracy=0.6), Outcome("poor", 3, (0.3, 0.5), accuracy=0.5)]
    assert ordered([*naive, *trained], rules) == ["good", "poor", "untrained"]
    assert ordered([*naive, *trained], Rules("mo-asha", (3, 10), ("max", "min")))[:2] == ["good", "untrained"]
    worse = Outcome("worse", 3, (0.02, 0.0), accuracy=0.1)
    assert ordered([worse, *naive], rules) == ["untrained", "worse"]


def rung(epochs: int, *values: float) -> list[Outcome]:
    return [Outcome(f"t{i}", epochs, (value, value)) for i, value in enumerate(values)]


def test_promotion_waits_for_eta_and_feeds_the_longest_rung_first() -> None:
    two, three = rung(3, 0.1, 0.2), rung(3, 0.1, 0.2, 0.3)
    assert promotion(two, {"t0": 3, "t1": 3}, RULES, more=True) is None
    assert promotion(three, dict.fromkeys(("t0", "t1", "t2"), 3), RULES, more=True) == ("t2", 10)
    assert promotion(three, {"t0": 3, "t1": 3, "t2": 10}, RULES, more=True) is None, "one in three"
    nine = rung(3, *(i / 10 for i in range(9)))
    asked = {f"t{i}": 3 for i in range(9)} | {"t8": 10, "t7": 10, "t6": 10}
    done = nine + [Outcome(f"t{i}", 10, (i / 10, i / 10)) for i in (6, 7, 8)]
    assert promotion(done, asked, RULES, more=True) == ("t8", 30)


def test_the_best_of_a_small_study_is_trained_to_the_end() -> None:
    asked, outcomes = {"t0": 3, "t1": 3}, rung(3, 0.1, 0.2)
    steps = []
    while (found := promotion(outcomes, asked, RULES, more=False)) is not None:
        steps.append(found)
        asked[found[0]] = found[1]
        outcomes.append(Outcome(found[0], found[1], (0.2, 0.2)))
    assert steps == [("t1", 10), ("t1", 30)]
    assert promotion(rung(3, 0.1), {"t0": 3, "t1": 3}, RULES, more=False) is None, "one still runs on this rung"


def test_the_net_does_not_send_everybody() -> None:
    """All on one front: whoever comes turns the net, yet one in three goes on."""
    asked, outcomes = dict[str, int](), list[Outcome]()
    for number, x in enumerate((0.5, 0.45, 0.55, 0.3, 0.7, 0.2, 0.8, 0.0, 1.0)):
        asked[f"t{number}"] = 3
        outcomes.append(Outcome(f"t{number}", 3, (x, 1 - x)))
        while (found := promotion(outcomes, asked, RULES, more=True)) is not None:
            asked[found[0]] = found[1]
    assert sorted(asked.values()) == [3] * 6 + [10] * 3
    better = Outcome("better", 3, (1.0, 1.0))
    assert promotion([*outcomes, better], {**asked, "better": 3}, RULES, more=True) == ("better", 10)


def test_a_larger_budget_takes_on_who_was_stopped() -> None:
    assert promotion([], {"t0": 30, "t1": 3}, Rules("none", (30,), MAX2), more=False) == ("t1", 30)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20), st.integers(2, 4))
def test_every_promoted_trial_was_among_the_best_of_its_rung(values, eta):
    rules = Rules("mo-asha", (1, eta, eta * eta), MAX2, eta)
    worth = {f"t{i}": tuple(map(float, value)) for i, value in enumerate(values)}
    outcomes = [Outcome(trial, 1, value) for trial, value in worth.items()]
    asked = dict.fromkeys(worth, 1)
    while (found := promotion(outcomes, asked, rules, more=False)) is not None:
        trial, epochs = found
        here = [each for each in outcomes if each.epochs == asked[trial]]
        assert trial in ordered(here, rules)[: -(-len(here) // eta)]
        asked[trial] = epochs
        outcomes.append(Outcome(trial, epochs, worth[trial]))
    assert eta * eta in asked.values()
    best = fronts.non_dominated(list(worth.values()), MAX2)
    whole = [trial for trial, epochs in asked.items() if epochs == eta * eta]
    assert any(best[list(worth).index(trial)] for trial in whole)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25), st.randoms())
def test_orders_that_are_kept_decide_as_those_that_are_made_anew(values, draw):
    """A history of trainings that end in any order, on three rungs."""
    orders, asked, outcomes = scheduler.Orders(), dict[str, int](), list[Outcome]()
    for number, value in enumerate(values):
        asked[f"t{number}"] = 3
        outcomes.insert(draw.randint(0, len(outcomes)), Outcome(f"t{number}", 3, tuple(map(float, value))))
        more = number + 1 < len(values)
        while (found := promotion(outcomes, asked, RULES, more, orders)) is not None:
            assert found == promotion(outcomes, asked, RULES, more)
            asked[found[0]] = found[1]
            outcomes.append(Outcome(found[0], found[1], tuple(map(float, values[int(found[0][1:])]))))
        assert promotion(outcomes, asked, RULES, more) is None


def test_a_look_ranks_no_rung_that_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked, original = [], scheduler.ordered
    monkeypatch.setattr(scheduler, "ordered", lambda here, *words: ranked.append(len(here)) or original(here, *words))
    orders, outcomes = scheduler.Orders(), rung(3, 0.1, 0.2, 0.3)
    asked = {"t0": 3, "t1": 3, "t2": 10}
    for _ in range(3):
        assert promotion(outcomes, asked, RULES, more=True, orders=orders) is None
    assert ranked == [3, 0], "once a rung"
    outcomes.append(Outcome("t2", 10, (0.3, 0.3)))
    promotion(outcomes, asked, RULES, more=True, orders=orders)
    assert ranked == [3, 0, 1]


def test_a_stopped_trials_first_word_to_optuna_reads_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = open_queue(plan(tmp_path, space=ONE_ARM, trials=4, storage="sqlite://", **LONG))
    row = here.take()
    monkeypatch.setattr(ArmStudy, "_told", lambda *_: pytest.fail("all trials are read"))
    here.done(row["training"], worth(row["job"]), "", epochs=2)
    (told,) = here.studies["one"].study.get_trials()[:1]
    assert told.state == TrialState.COMPLETE and told.constraints["budget"] == pytest.approx(8 / 9)


def open_queue(made: Plan) -> Queue:
    return Queue(made, Ledger(made.request.storage, made.request.study))


def worth(job: dict) -> dict[str, float]:
    """Better with epochs; some configurations are not finite, some break a constraint."""
    values = pretend(job)
    part = job["schedule"]["epochs"] / 9
    for name in (*TAILS, "robust_accuracy"):
        values[name] *= part**0.3
    values["clean_accuracy"] = 0.5 + job["hyperparameters"]["temperature_lr"] / 2
    return values


def fate(job: dict, draw: random.Random) -> dict[str, float] | None:
    """What a training says that may fail, or end with values that are no numbers."""
    kind = draw.random()
    if kind < 0.1:
        return None
    odd = {draw.choice(["robust_cvar", "robust_accuracy"]): draw.choice([float("nan"), float("inf")])}
    return worth(job) | (odd if kind < 0.2 else {})


def drain(made: Plan, again: bool = False, here: Queue | None = None, lose: random.Random | None = None) -> list[str]:
    """Everything that is trained, in order; `again`: the driver is started anew for every training."""
    found, here = [], here or open_queue(made)
    while (row := here.take()) is not None:
        metrics = worth(row["job"]) if lose is None else fate(row["job"], lose)
        here.done(row["training"], metrics, "" if metrics else "nonfinite", epochs=1)
        found.append(row["training"])
        here = open_queue(made) if again else here
    return found


CONDITIONAL = SearchSpace(
    fixed={"method": "absld"},
    arms={"one": {}},
    tuned={
        "coupling": Choice(("dual", "mixed")),
        "coupling_strength": Uniform(0.1, 1.0, when={"coupling": "mixed"}),
        "temperature_lr": LogUniform(1e-2, 1.0),
    },
)
CORE = [name for name in SAMPLERS if name not in EXTRAS]


@pytest.mark.parametrize("stopping", ["none", "mo-asha"])
@pytest.mark.parametrize("sampler", CORE)
def test_a_driver_killed_after_any_training_decides_the_same(tmp_path: Path, sampler: str, stopping: str) -> None:
    """Enough trials for the sampler's model to speak, and for a genetic one's third generation."""
    words = {**LONG, "trials": 10, "sampler": sampler, "stopping": stopping}
    at_once = drain(plan(tmp_path / "a", space=CONDITIONAL, **words))
    in_pieces = drain(plan(tmp_path / "b", space=CONDITIONAL, **words), again=True)
    assert at_once == in_pieces


def two_at_a_time(made: Plan, again: bool = False) -> list[str]:
    """Everything that is trained, in the order in which it ends; `again`: the driver is killed after each, with what
    was under way."""
    here, under_way, found = open_queue(made), list[dict](), list[str]()
    while True:
        while len(under_way) < 2 and (row := here.take()) is not None:
            under_way.append(row)
        if not under_way:
            return found
        row = under_way.pop(0)
        here.done(row["training"], worth(row["job"]), "", epochs=1)
        found.append(row["training"])
        if again:
            here, under_way = open_queue(made), []


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_driver_killed_with_two_trainings_under_way_decides_the_same(tmp_path: Path, sampler: str) -> None:
    words = {**LONG, "trials": 10, "sampler": sampler, "space": CONDITIONAL}
    assert two_at_a_time(plan(tmp_path / "a", **words)) == two_at_a_time(plan(tmp_path / "b", **words), again=True)


def test_a_driver_killed_within_a_race_decides_the_same(tmp_path: Path) -> None:
    words = {**LONG, "stopping": "none", "trials": 4, "race": True, "space": ONE_ARM}
    at_once = drain(made := plan(tmp_path / "a", **words))
    assert len(open_queue(made).ledger.trainings(stage="race")) > 2
    assert at_once == drain(plan(tmp_path / "b", **words), again=True)


@pytest.mark.parametrize("sampler", CORE)
def test_a_proposal_that_a_kill_lost_is_made_again(tmp_path: Path, sampler: str) -> None:
    """Killed each time between Optuna's ask and the ledger."""
    words = {**LONG, "trials": 10, "sampler": sampler, "stopping": "none"}
    at_once = drain(plan(tmp_path / "a", space=CONDITIONAL, **words))
    made, found = plan(tmp_path / "b", space=CONDITIONAL, **words), list[str]()
    for _ in range(9):
        open_queue(made).studies["one"].ask()
        row = (here := open_queue(made)).take()
        assert row is not None
        here.done(row["training"], worth(row["job"]), "", epochs=1)
        found.append(row["training"])
    assert found == at_once[:9]


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_a_promoted_trial_is_a_parent(tmp_path: Path, sampler: str) -> None:
    """Parents are those trained longest: in Optuna's study what was promoted is another trial, of the newest
    generation."""
    made = plan(tmp_path, space=ONE_ARM, sampler=sampler, storage="sqlite://", **LONG, trials=30)
    here = open_queue(made)
    drain(made, here=here)
    study = here.studies["one"].study
    attrs = study._storage.get_study_system_attrs(study._study_id)
    parents = {number for key, ids in attrs.items() if ":parent:" in key for number in ids}
    trials = {trial._trial_id: trial for trial in study.get_trials()}
    assert all(f"{type(study.sampler).__name__}:generation" in trial.system_attrs for trial in trials.values())
    lacking = [trials[parent].constraints["budget"] for parent in parents]
    assert 0.0 in lacking, "a whole training is a parent"
    deepest = {}
    for trial in trials.values():
        number = trial.user_attrs.get("supersedes", trial.number)
        deepest[number] = min(deepest.get(number, 1.0), trial.constraints["budget"])
    assert sorted(set(deepest.values())) == [0.0, pytest.approx(2 / 3), pytest.approx(8 / 9)], "every rung is told"


def test_a_kill_before_optuna_hears_the_second_time_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(tmp_path, space=ONE_ARM, trials=4, **LONG)
    with monkeypatch.context() as patch:
        patch.setattr(ArmStudy, "supersede", lambda *_: None)  # the kill
        drain(made)
    assert open_queue(made).studies["one"].study.best_trials, "the next start tells it"


def test_arms_of_several_lengths_are_told_in_every_start(tmp_path: Path) -> None:
    space = SearchSpace(fixed={}, arms={"short": {"epochs": 1}, "long": {"epochs": 2}}, tuned=ONE_ARM.tuned)
    made = plan(tmp_path, space=space, trials=3, seeds=1)
    drain(made, again=True)
    assert not any(study.running() for study in open_queue(made).studies.values())


def test_epochs_can_be_tuned_where_nothing_is_stopped(tmp_path: Path) -> None:
    space = SearchSpace(fixed={}, arms={"one": {}}, tuned={"epochs": Choice((1, 2)), **ONE_ARM.tuned})
    made = plan(tmp_path, space=space, trials=5, seeds=1, storage="sqlite://")
    here = open_queue(made)
    trained = drain(made, here=here)
    assert {trial["state"] for trial in here.ledger.trials()} == {COMPLETE} and len(trained) == 5 + 1
    assert not here.studies["one"].running()


def test_stopped_trials_become_whole_with_a_larger_budget(tmp_path: Path) -> None:
    first = drain(plan(tmp_path, space=ONE_ARM, trials=6, **LONG))
    here = open_queue(plan(tmp_path, space=ONE_ARM, trials=6, **LONG))
    states = [trial["state"] for trial in here.ledger.trials()]
    assert states.count(COMPLETE) == 1 and states.count(STOPPED) == 5
    assert "stopped after 2 of 18 epochs" in {trial["reason"] for trial in here.ledger.trials()}
    more = drain(plan(tmp_path, space=ONE_ARM, trials=12, **LONG))
    assert not set(first) & set(more)
    rest = drain(plan(tmp_path, space=ONE_ARM, trials=12, **{**LONG, "stopping": "none"}))
    trials = here.ledger.trials()
    assert {trial["state"] for trial in trials} == {COMPLETE} and not set(first + more) & set(rest)
    study = here.studies["one"].study
    stored = optuna.load_study(study_name=study.study_name, storage=study._storage)
    best = {tuple(trial.values) for trial in stored.best_trials}
    names = choices.front_trials(here.plan, trials)[0]
    assert best == {tuple(trial["objectives"].values()) for trial in trials if trial["trial"] in names}


def test_stopped_trials_become_whole_where_more_make_a_grid(tmp_path: Path) -> None:
    """Six of eight choices are a search with rungs, eight of eight are a grid, which stops nobody."""
    rates = Choice(tuple(0.1 * each for each in range(1, 9)))
    space = SearchSpace(fixed={"method": "absld"}, arms={"one": {}}, tuned={"temperature_lr": rates})
    first = drain(made := plan(tmp_path, space=space, trials=6, **LONG))
    assert "mo-asha" in describe.opening(made)
    here = open_queue(made := plan(tmp_path, space=space, trials=8, **LONG))
    assert "mo-asha" not in describe.opening(made)
    assert STOPPED in {trial["state"] for trial in here.ledger.trials()}
    more = drain(made, here=here)
    assert [trial["state"] for trial in here.ledger.trials()] == [COMPLETE] * 8
    assert not set(first) & set(more)


def last_words(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Number of a trial -> what Optuna was told of it last."""
    trials = [trial for trial in study.get_trials() if "dropped" not in trial.user_attrs]
    return {trial.user_attrs.get("supersedes", trial.number): trial for trial in trials}


def feasible(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_nothing_stopped_failed_or_infeasible_is_on_a_front(tmp_path_factory, seed):
    """Random histories: kinds, limits, seeds, races and losses; our fronts and Optuna's hold whole, feasible trials
    alone, and finite numbers. What a race changes is told again; what was told before it stays with Optuna, so there
    the last word on each trial counts."""
    draw = random.Random(seed)
    words = {**LONG, "stopping": draw.choice(["asha", "mo-asha"]), "sampler": draw.choice(["random", "tpe", "nsga2"])}
    words |= {"storage": "sqlite://"}  # in memory: one queue a history
    words |= {"race": draw.random() < 0.3, "search_seeds": draw.choice([1, 2])}
    words |= {"constraints": ("clean_accuracy >= 0.6",)} if draw.random() < 0.6 else {}
    made = plan(tmp_path_factory.mktemp("history"), space=ONE_ARM, trials=draw.randint(3, 9), **words)
    here = open_queue(made)
    drain(made, here=here, lose=draw)
    trials = {trial["trial"]: trial for trial in here.ledger.trials()}
    joint, own = choices.front_trials(made, list(trials.values()))
    assert {trials[name]["state"] for name in joint | own} <= {COMPLETE}
    bad = [trial for trial in trials.values() if trial["state"] in (STOPPED, FAILED, INFEASIBLE)]
    assert all(trial["state"] in (COMPLETE, STOPPED, FAILED, INFEASIBLE) for trial in trials.values())
    study = here.studies["one"].study
    complete = [tuple(trial["objectives"].values()) for trial in trials.values() if trial["state"] == COMPLETE]
    assert all(math.isfinite(value) for row in complete for value in row)
    told = last_words(study)
    assert {f"one-{n:03d}" for n, each in told.items() if feasible(each)} == set(trials) - {t["trial"] for t in bad}
    assert all(tuple(trial["objectives"].values()) == tuple(told[trial["number"]].values) for trial in trials.values()
               if trial["state"] == COMPLETE)  # fmt: skip
    if not words["race"]:
        assert all(tuple(trial.values) in complete for trial in (study.best_trials if complete else ()))
    assert len(bad) + len(complete) == len(trials)


def test_infeasible_trials_are_told_and_never_chosen(tmp_path: Path) -> None:
    made = plan(tmp_path, space=ONE_ARM, trials=5, seeds=1, constraints=("clean_accuracy >= 0.7",))
    drain(made)
    trials = open_queue(made).ledger.trials()
    for trial in trials:
        meets = 0.5 + trial["params"]["temperature_lr"] / 2 >= 0.7
        assert trial["state"] == (COMPLETE if meets else INFEASIBLE)
    chosen = choices.choice(made, trials)
    assert chosen is None or chosen["state"] == COMPLETE
    assert {trial["state"] for trial in trials} == {COMPLETE, INFEASIBLE}


def test_what_is_said_of_broken_constraints_is_read_back(tmp_path: Path) -> None:
    limits = plan(tmp_path, constraints=("clean_accuracy >= 0.8", "robust_nsd <= 0.3", "clean_nsd <= 1e-3")).constraints
    measured = [{"clean_accuracy": 0.7, "robust_nsd": 0.1}, {"clean_accuracy": 0.75, "robust_nsd": 0.4}]
    found = constraints.shortfalls(constraints.broken(limits, each) + "; 1 of 3 more seeds failed" for each in measured)
    assert found == {"clean_accuracy >= 0.8": (2, 0.75), "robust_nsd <= 0.3": (1, 0.4), "clean_nsd <= 0.001": (2, None)}
    assert constraints.shortfalls(["", "nonfinite:loss"]) == {}


def test_rungs_that_trials_stopped_on_stay(tmp_path: Path) -> None:
    """With another --grace they would never be promoted from where they are."""
    drain(plan(tmp_path, space=ONE_ARM, trials=6, **LONG))
    check_storage(plan(tmp_path, space=ONE_ARM, trials=9, **LONG))
    for words in (dict(grace=6), dict(eta=2), dict(eta=2, grace=3)):
        with pytest.raises(UsageError, match="--grace, --eta: .* after 2 .*epochs in arm 'one', where the rungs would"):
            check_storage(plan(tmp_path, space=ONE_ARM, trials=9, **LONG, **words))
    check_storage(plan(tmp_path, space=ONE_ARM, trials=9, grace=6, **{**LONG, "stopping": "none"}))
    fewer = {**LONG, "set": {"epochs": "18"}, "grace": 6}
    drain(plan(tmp_path / "finer", space=ONE_ARM, trials=6, **fewer))
    check_storage(plan(tmp_path / "finer", space=ONE_ARM, trials=9, **LONG))  # a rung more below strands nobody


def test_words_of_stopping_and_constraints_are_checked(tmp_path: Path) -> None:
    for words, message in (
        (dict(stopping="mo-ahsa"), "Did you mean 'mo-asha'"),
        (dict(stopping="asha", eta=1), "--eta"),
        (dict(constraints=("clean_acuracy >= 0.8",)), "Did you mean 'clean_accuracy'"),
        (dict(constraints=("clean_accuracy > 0.8",)), "must read"),
        (dict(constraints=("clean_accuracy >= high",)), "must be a number"),
        (dict(constraints=("clean_accuracy >= 50",)), "constraint clean_accuracy: .*fractions; did you mean 0.5?"),
        (dict(constraints=("robust_cvar <= -1",)), "-1 is not from 0 to 1: accuracies are fractions"),
    ):
        with pytest.raises(UsageError, match=message):
            plan(tmp_path, **words)
    assert plan(tmp_path, constraints=("robust_nsd <= 1.5",)).constraints[0].bound == 1.5
    tuned = SearchSpace(fixed={}, arms={"one": {}}, tuned={"epochs": LogUniform(2, 9)})
    with pytest.raises(UsageError, match="epochs"):
        plan(tmp_path, space=tuned, stopping="asha")


def test_a_sampler_learns_from_one_rung_at_a_time() -> None:
    outcomes = rung(3, *(i / 10 for i in range(8))) + [Outcome("t7", 10, (0.9, 0.9)), Outcome("t6", 10, None)]
    assert {each.epochs for each in scheduler.seen(outcomes, RULES, least=5)} == {3}
    assert [each.trial for each in scheduler.seen(outcomes, RULES, least=1)] == ["t7"]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_on_rungs_hears_of_broken_constraints(tmp_path: Path, sampler: str) -> None:
    words = {**LONG, "trials": 9, "sampler": sampler, "storage": "sqlite://"}
    here = open_queue(plan(tmp_path, space=ONE_ARM, constraints=("clean_accuracy >= 0.7",), **words))
    drain(here.plan, here=here)
    seen = here.halving["one"].seen()
    assert seen and all(
        violations == {"clean_accuracy": pytest.approx(0.2 - params["temperature_lr"] / 2)}
        for params, values, violations in seen
    )
    study = here.studies["one"]
    rates = [0.01 * 1.4**i for i in range(13)]  # the best of them break the constraint
    shown = [Seen({"temperature_lr": x}, (1 - x, 0.5), {"clean_accuracy": 0.1 - x}) for x in rates]
    shunned = study._proposal(shown)["temperature_lr"]
    free = study._proposal([each._replace(violations={}) for each in shown])["temperature_lr"]
    assert shunned != free, "the proposal is another where the best are infeasible"
