"""The epoch loop: rates, ends, starts, averages, sampling, measuring."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from absld_search.core import data, models
from absld_search.core.averaging import WeightAverage
from absld_search.core.config import TrialConfig
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Epoch
from absld_search.core.trainer import NonFinite, Options, Schedule, WarmUp
from absld_search.core.trial import run_trial
from absld_search.words import UsageError
from absld_search.workloads import DIGITS
from tests.core.zoo import equal, same, small, trainer

SMOKE = "digits-smoke"


def rates(schedule: Schedule, options: Options | None = None) -> dict[int, float]:
    trained = trainer("sat", schedule=schedule, options=options, eps=0.0, step_size=0.1, num_steps=1)
    found: dict[int, float] = {}
    trained.run(lambda end: found.__setitem__(end.number, end.metrics["learning_rate"]))
    return found


def test_learning_rate_falls_where_the_papers_drop_it() -> None:
    found = rates(Schedule(20, 200, 0.1, 0.9, 0.0, (0.5, 0.75, 0.9), 0.1))
    assert [found[epoch] for epoch in (10, 11, 16, 20)] == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def test_drop_once_is_the_slip_of_the_releases() -> None:
    found = rates(Schedule(8, 200, 0.1, 0.9, 0.0, (0.5, 0.75), 0.1), Options(drop_once=True))
    assert [found[epoch] for epoch in (4, 5, 7, 8)] == pytest.approx([0.1, 0.01, 0.01, 0.01])


def test_nan_ends_the_training_with_a_reason() -> None:
    trained = trainer("sat")
    with torch.no_grad():
        next(trained.student.parameters()).fill_(float("nan"))
    with pytest.raises(NonFinite, match="nonfinite:student-logits@1"):
        trained.run_epoch()


def test_epoch_shares_are_the_papers_epochs() -> None:
    assert [Epoch(n, 200, 1).past(60 / 200) for n in (60, 61)] == [False, True]
    assert [Epoch(n, 110, 1).past(70 / 110) for n in (70, 71)] == [False, True]


def test_a_warm_up_is_that_methods_training_first() -> None:
    """The first epochs are TRADES to the bit, the rest is not, and the whole costs the same epochs."""
    schedule = Schedule(4, 100, 0.5, 0.9, 2e-4, (0.5,), 0.1)
    first = WarmUp(METHODS["trades"](eps=0.1, step_size=0.05, num_steps=4), 2)
    tuned, plain = trainer("faal", schedule=schedule, first=first), trainer("trades", schedule=schedule)
    seen: list[bool] = []
    while tuned.epoch < 4:
        tuned.run_epoch(), plain.run_epoch()
        seen.append(same(tuned, plain))
    assert seen == [True, True, False, False]


def test_a_method_counts_epochs_from_where_it_took_over(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Epoch] = []
    trained = trainer("sat", first=WarmUp(METHODS["trades"](num_steps=1), 1))
    monkeypatch.setattr(trained.method, "end_epoch", lambda means, epoch: seen.append(epoch) or {})
    trained.run(lambda end: None)
    assert [(epoch.number, epoch.total) for epoch in seen] == [(1, 1)]


def test_starts_are_settled_by_the_paper_or_the_person(tmp_path: Path) -> None:
    assert TrialConfig.from_words({"method": "frl"}, "digits").warm_up().epochs == 22  # where the rate first drops
    assert TrialConfig.from_words({"method": "sat"}, "digits").warm_up() is None
    assert TrialConfig.from_words({"method": "frl", "init_from": ""}, "digits").warm_up() is None
    half = {"method": "sat", "init_from": "trades", "init_share": 0.5}
    assert TrialConfig.from_words(half, "digits").warm_up().epochs == 15
    with pytest.raises(UsageError, match="Did you mean 'trades'"):
        TrialConfig.from_words({"method": "frl", "init_from": "trade"}, "digits")
    with pytest.raises(UsageError, match="there is no file"):
        TrialConfig.from_words({"method": "frl", "init_from": "none.safetensors"}, "digits")


def test_a_training_starts_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.build(DIGITS.student, 10, 1, seed=99)
    path = tmp_path / "robust.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    words = {"method": "sat", "init_from": str(path), "learning_rate": 1e-30, "weight_decay": 0}
    config = TrialConfig.from_words(words, SMOKE)
    assert config.hash != TrialConfig.from_words({**words, "init_from": ""}, SMOKE).hash
    run_trial(config, tmp_path / "run", lambda *_: None)
    ended = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    assert torch.equal(ended["linear.weight"], model.linear.weight)


def test_the_average_is_the_average_and_is_what_is_deployed() -> None:
    average, decay = WeightAverage(0.75), 0.75
    students = [models.build("cnn-4", 10, 1, seed) for seed in range(3)]
    assert average.deployed(students[0]) is students[0]
    for student in students:
        average.update(student)
    first, second, third = (student.linear.weight for student in students)
    expected = decay * (decay * first + (1 - decay) * second) + (1 - decay) * third
    assert torch.allclose(average.deployed(students[2]).linear.weight, expected)
    assert average.deployed(students[2]) is not students[2]


@pytest.mark.parametrize(("floor", "enters"), [(0.0, True), (1.0, False)])
def test_the_gate_keeps_unfair_weights_out(floor: float, enters: bool) -> None:
    options = Options(averaging="fawa", averaging_start=0, averaging_floor=floor)
    trained, plain = trainer("sat", options=options), trainer("sat")
    for one in (trained, plain):
        one.run(lambda end: None)
    assert same(trained, plain), "averaging watches; it does not train"
    assert (trained.deployed is not trained.student) == enters


def test_class_probability_draws_classes() -> None:
    split = small()
    wanted = torch.tensor([0.5, 0.3, 0.2, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    drawn = torch.cat([b.y for seed in range(20) for b in split.batches(100, seed, 1, lambda: wanted)])
    assert len(drawn) == 20 * len(split)
    shares = torch.bincount(drawn, minlength=10) / len(drawn)
    assert torch.allclose(shares.double(), wanted, atol=0.03)
    once = [b.index.tolist() for b in split.batches(100, 0, 1, lambda: wanted)]
    assert once == [b.index.tolist() for b in split.batches(100, 0, 1, lambda: wanted)]


def test_monitor_is_cut_from_train_alone_by_class() -> None:
    whole, val = data.load("digits", DIGITS.split, "cpu")
    train, monitor = data.load_monitor("digits", DIGITS.split, 0.1, "cpu")
    kept, apart = set(train.ids.tolist()), set(monitor.ids.tolist())
    assert kept | apart == set(whole.ids.tolist()) and not kept & apart and not apart & set(val.ids.tolist())
    counts = torch.bincount(monitor.labels, minlength=10)
    assert counts.min() >= 6 and counts.max() <= 8


def test_measuring_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """WAT at rate zero trains the same whether or not it measures."""
    measuring, blind = trainer("wat", weight_lr=0.0), trainer("wat", weight_lr=0.0)
    monkeypatch.setattr(blind.method, "measured_on", lambda: "")
    for one in (measuring, blind):
        one.run(lambda end: None)
    assert same(measuring, blind)
    assert measuring.method.costs.any() and not blind.method.costs.any()


def test_released_switches_reach_the_training() -> None:
    config = TrialConfig.from_words({"method": "fair-ard", "released": "true"}, "digits")
    assert config.options.nesterov and config.options.drop_once
    method = config.build()
    assert (method.attack_mode, method.renormalise, method.assume_balanced) == ("train", False, True)
    assert not TrialConfig.from_words({"method": "fair-rslad", "released": "true"}, "digits").options.drop_once
    assert TrialConfig.from_words({"method": "cfa"}, "digits").options.averaging == "fawa"
    assert TrialConfig.from_words({"method": "cfa", "released": "true"}, "digits").options.averaging_decay == 0.88
    assert TrialConfig.from_words({"method": "cfa", "averaging": "none"}, "digits").options.averaging == "none"


def test_two_teachers_are_named() -> None:
    assert TrialConfig.from_words({"method": "mtard"}, "digits").teacher_names == {
        "robust": "trades-wide", "clean": "clean-wide"}  # fmt: skip
    assert TrialConfig.from_words({"method": "absld", "label_source": "ema"}, "digits").teacher_names == {}
    assert equal(TrialConfig.from_words({"method": "sat"}, "digits").teacher_names, {})
