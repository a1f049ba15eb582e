"""Whatever is not finite ends a training with the place and the epoch where it first was so, and never as a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from absld_search.core import metrics, records, results, trial
from absld_search.core.config import TrialConfig
from absld_search.core.data import Batch
from absld_search.core.evaluation import Outcome
from absld_search.core.finite import NonFinite
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Step
from absld_search.core.trainer import Schedule, Trainer
from absld_search.core.trial import run_trial
from tests.core.zoo import trainer

SCHEDULE = Schedule(3, 100, 0.5, 0.9, 2e-4, (0.5,), 0.1)
BAD = (math.nan, math.inf, -math.inf)
Poison = Callable[[Tensor], Tensor]  # what it is given, with one value spoilt when its time has come


class Clock:
    """Strikes once: in the second step of an epoch, so that there is a step before and, with 200 images, none after."""

    def __init__(self, trained: Trainer, epoch: int, bad: float) -> None:
        self.trained, self.epoch, self.bad, self.step = trained, epoch, bad, 0

    def poison(self, values: Tensor) -> Tensor:
        if self.trained.epoch + 1 != self.epoch or self.step != 1:
            return values
        spoilt = values.clone()
        spoilt.view(-1)[0] = self.bad
        return spoilt


def in_loss(trained: Trainer, poison: Poison) -> None:
    changed(trained, lambda found: Step(found.loss * poison(torch.ones(1))[0], found.per_sample))


def in_class_loss(trained: Trainer, poison: Poison) -> None:
    changed(trained, lambda found: Step(found.loss, {**found.per_sample, "adv_kl": poison(found.per_sample["adv_kl"])}))


def changed(trained: Trainer, change: Callable[[Step], Step]) -> None:
    real = trained.method.step
    trained.method.step = lambda *words: change(real(*words))  # type: ignore[method-assign]


def in_teacher(trained: Trainer, poison: Poison) -> None:
    class Spoilt:
        def __init__(self, teacher: object) -> None:
            self.teacher = teacher

        def clean_logits(self, batch: Batch) -> Tensor:
            return poison(self.teacher.clean_logits(batch))

        def __call__(self, x: Tensor) -> Tensor:
            return poison(self.teacher(x))

    for watched in trained.teachers.values():
        watched.teacher = Spoilt(watched.teacher)


def in_student(trained: Trainer, poison: Poison) -> None:
    trained.student.register_forward_hook(lambda module, words, logits: poison(logits))


def in_temperatures(trained: Trainer, poison: Poison) -> None:
    real = trained.method.end_epoch

    def end_epoch(*words: object) -> dict[str, Tensor]:
        logged = real(*words)
        return {**logged, "temperature_adv": poison(logged["temperature_adv"])}

    trained.method.end_epoch = end_epoch  # type: ignore[method-assign]


PLACES = {
    "loss": (in_loss, "loss"),
    "teacher logits": (in_teacher, "teacher-logits"),
    "student logits": (in_student, "student-logits"),
    "class loss": (in_class_loss, "adv_kl"),
    "temperatures": (in_temperatures, "temperature_adv"),
}


def spoilt(trained: Trainer, place: str, epoch: int, bad: float) -> str:
    """What a training says that is spoilt there and then."""
    clock = Clock(trained, epoch, bad)
    PLACES[place][0](trained, clock.poison)
    ended = trained.watch.end_step

    def end_step(found: Step) -> None:
        ended(found)
        clock.step += 1

    begun = trained.watch.begin

    def begin() -> None:
        begun()
        clock.step = 0 if place != "temperatures" else 1

    trained.watch.end_step, trained.watch.begin = end_step, begin  # type: ignore[method-assign]
    if place == "temperatures":
        trained.watch.end_step = ended  # type: ignore[method-assign]
    with pytest.raises(NonFinite) as error:
        trained.run(lambda end: None)
    assert trained.epoch == epoch - 1, "the epoch before was still good"
    return str(error.value)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("place", PLACES)
def test_n1_first_middle_and_last_epoch(place: str, epoch: int) -> None:
    bad = BAD[epoch % 2]  # nan or infinity
    said = spoilt(trainer("absld", schedule=SCHEDULE), place, epoch, bad)
    assert said == f"nonfinite:{PLACES[place][1]}@{epoch}"


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name]().roles()])
@pytest.mark.parametrize("bad", BAD)
def test_a_teacher_that_is_not_finite_is_named_by_every_method(name: str, bad: float) -> None:
    """Minus infinity alone makes a fine softmax and a fine loss: only who looks at the logits sees it."""
    schedule = Schedule(1, 100, 0.5, 0.9, 2e-4, (0.5,), 0.1)
    assert (
        spoilt(trainer(name, schedule=schedule, num_steps=2), "teacher logits", 1, bad) == "nonfinite:teacher-logits@1"
    )


def test_a_student_that_is_not_finite_is_not_blamed_on_the_teacher() -> None:
    """AdaAD asks the teacher about the student's adversarial images, which are nan then."""
    trained = trainer("adaad", num_steps=2)
    with torch.no_grad():
        next(trained.student.parameters()).fill_(math.nan)
    with pytest.raises(NonFinite, match="nonfinite:student-logits@1"):
        trained.run_epoch()


def test_watching_changes_nothing_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, reads = trainer("absld"), []
    real = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: reads.append(1) or real(self))
    found = watched.watch.found
    monkeypatch.setattr(watched.watch, "found", lambda: (reads.clear(), found(), reads.append(len(reads)))[1])
    watched.run(lambda end: None)
    assert reads[0] == 1, "one read an epoch"


SMOKE = TrialConfig.from_words({"epochs": 3}, "digits-smoke")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_n1_a_metric_through_run_trial(epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[int] = []
    real = metrics.summary

    def summary(kind: str, *words: object) -> dict[str, float]:
        now = len(reported) + 1
        return {**real(kind, *words), **({f"{kind}_accuracy": math.nan} if min(now, 3) == epoch else {})}

    monkeypatch.setattr(metrics, "summary", summary)
    with pytest.raises(NonFinite, match=rf"nonfinite:metric-clean_accuracy@{epoch}"):
        run_trial(SMOKE, tmp_path, lambda number, found: reported.append(number))
    assert results.read_result(tmp_path) is None


@pytest.mark.parametrize("place", ["teacher logits", "student logits"])
def test_n1_through_run_trial(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that could be taken for a result, and the same training again says the same."""
    real = trial._trainer

    def spoiling(*words: object) -> Trainer:
        trained = real(*words)
        now = lambda: trained.epoch == 1 and trained.student.training  # noqa: E731  and not while it is evaluated
        PLACES[place][0](trained, lambda values: values * (math.nan if now() else 1))
        return trained

    monkeypatch.setattr(trial, "_trainer", spoiling)
    for _ in range(2):
        with pytest.raises(NonFinite, match=f"nonfinite:{PLACES[place][1]}@2"):
            run_trial(SMOKE, tmp_path, lambda *_: None, checkpoint_seconds=0)
    assert results.read_result(tmp_path) is None and not list(tmp_path.glob("*.parquet"))
    assert not (tmp_path / "model.safetensors").exists()


def test_an_nsd_without_a_value_is_no_failure(tmp_path: Path) -> None:
    """All classes at zero: the metric is undefined there, and left out."""
    nothing = Outcome("apgd-ce", np.arange(10), np.arange(10), np.zeros(10, dtype=bool), 10)
    found = records.metrics_of({"val": [nothing]})
    assert "robust_nsd" not in found and found["robust_accuracy"] == 0.0
