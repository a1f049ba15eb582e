"""Learning rates by the epoch: what holds for every schedule, and what the words of one may say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from absld_search.core.config import TrialConfig
from absld_search.core.methods.base import Epoch
from absld_search.core.schedules import SHAPES, WSD, Schedule
from absld_search.words import UsageError
from tests.core import zoo


def wsd(epochs: int, **numbers: Any) -> Schedule:
    return Schedule(epochs, 100, 0.5, 0.9, 0.0, (0.5,), 0.1, kind="wsd", **numbers)


def scales(schedule: Schedule) -> list[float]:
    return [schedule.scale(done) for done in range(schedule.epochs)]


SHARES = st.floats(0.01, 1)
NUMBERS = {
    "warmup_share": st.floats(0, 0.5),
    "decay_share": SHARES,
    "decay_shape": st.sampled_from(list(SHAPES)),
    "decay_floor": st.floats(0, 1),
}


@given(st.integers(1, 400), st.fixed_dictionaries(NUMBERS))
def test_the_rate_rises_stays_and_falls(epochs: int, numbers: dict[str, Any]) -> None:
    schedule = wsd(epochs, **numbers)
    found = scales(schedule)
    top = found.index(max(found))
    assert all(0 <= scale <= 1 for scale in found)
    assert found[: top + 1] == sorted(found[: top + 1]) and found[top:] == sorted(found[top:], reverse=True)
    assert found[-1] <= max(schedule.decay_floor, found[0])
    assert 0 <= schedule.branch_at < epochs


@given(st.integers(1, 300), st.integers(0, 300), st.fixed_dictionaries(NUMBERS))
def test_a_branch_has_the_rates_of_its_trunk_until_it_leaves(epochs: int, more: int, numbers: dict[str, Any]) -> None:
    trunk, branch = wsd(epochs + more, **numbers), wsd(epochs, trunk_epochs=epochs + more, **numbers)
    assert branch.branch_at <= trunk.branch_at
    assert scales(trunk)[: branch.branch_at] == scales(branch)[: branch.branch_at]


def test_numbers_of_both_shapes() -> None:
    plain = {"warmup_share": 0.2, "decay_share": 0.4, "decay_floor": 0.0}
    linear, root = (scales(wsd(10, decay_shape=shape, **plain)) for shape in ("linear", "sqrt"))
    rise = [1 / 3, 2 / 3, 1, 1, 1, 1]
    assert linear == pytest.approx([*rise, 0.75, 0.5, 0.25, 0])
    assert root == pytest.approx([*rise, 1 - 0.25**0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0])


def test_the_optimizer_has_these_rates_and_methods_are_told_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """At an epoch's end too: what a trunk learns there may not depend on the branch that follows."""
    schedule, seen = wsd(5, warmup_share=0.2, decay_share=0.4), []
    trained = zoo.trainer("sat", schedule=schedule, eps=0.0, num_steps=1)

    def end_epoch(means: object, epoch: Epoch) -> dict[str, Any]:
        seen.append(epoch.lr_scale)
        return {}

    monkeypatch.setattr(trained.method, "end_epoch", end_epoch)
    rates: list[float] = []
    trained.run(lambda end: rates.append(end.metrics["learning_rate"]))
    assert rates == pytest.approx([0.5 * scale for scale in scales(schedule)])
    assert seen == scales(schedule)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4))
def test_a_training_that_stops_goes_on_with_the_same_rates(stop: int) -> None:
    schedule = wsd(5, warmup_share=0.4, decay_share=0.4)
    whole, first, second = (zoo.trainer("sat", schedule=schedule, eps=0.0, num_steps=1) for _ in range(3))
    whole.run(lambda end: None)
    while first.epoch < stop:
        first.run_epoch()
    second.load_state_dict(first.state_dict())
    second.run(lambda end: None)
    assert zoo.same(whole, second)


def test_defaults_keep_their_identity() -> None:
    """What was trained before there was a second kind is found again."""
    plain = TrialConfig.from_words({}, "digits")
    assert TrialConfig.from_words({"schedule": "step"}, "digits").hash == plain.hash
    assert list(plain.schedule.identity()) == [
        "epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "milestones", "lr_factor",
    ]  # fmt: skip


@pytest.mark.parametrize(("word", "value"), [*zip(WSD, (0.1, 0.5, "linear", 0.1, 60), strict=True)])
def test_every_number_of_wsd_is_part_of_the_identity(word: str, value: object) -> None:
    plain = TrialConfig.from_words({"schedule": "wsd"}, "digits")
    changed = TrialConfig.from_words({"schedule": "wsd", word: value}, "digits")
    hashes = {TrialConfig.from_words({}, "digits").hash, plain.hash, changed.hash}
    assert len(hashes) == 3
    assert TrialConfig.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_a_trunk_of_its_own_length_is_none() -> None:
    words = {"schedule": "wsd", "epochs": 30}
    own = TrialConfig.from_words({**words, "trunk_epochs": 30}, "digits")
    assert own.hash == TrialConfig.from_words(words, "digits").hash


GATE = [
    ({"schedule": "wds"}, "Did you mean 'wsd'"),
    ({"decay_share": 0.2}, "decay_share is a word of schedule=wsd"),
    ({"schedule": "wsd", "decay_share": 0}, "decay_share must be greater than 0"),
    ({"schedule": "wsd", "decay_shape": "squared"}, "decay_shape 'squared' is unknown"),
    ({"schedule": "wsd", "trunk_epochs": 5}, "trunk_epochs is 5, less than the branch's own epochs, 30"),
    ({"schedule": "wsd", "drop_once": True}, "drop_once leaves out drops"),
    ({"schedul": "wsd"}, "Did you mean 'schedule'"),
]


@pytest.mark.parametrize(("words", "message"), GATE)
def test_gate(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrialConfig.from_words(words, "digits")
