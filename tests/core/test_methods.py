"""What every method must do, whatever its paper says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absld_search.core import teachers
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import checked, knobs
from absld_search.core.trainer import Options, WarmUp
from absld_search.words import UsageError
from tests.core.zoo import ROLES, equal, gradients, images, network, ready, same, small, stepped, trainer, weights

FORWARDS = {"bat": {3}}  # training forwards a step where they are not one or two

pytestmark = pytest.mark.parametrize("name", METHODS)


def test_moves_the_student_and_reports_classes(name: str) -> None:
    trained = trainer(name)
    before = [value.clone() for value in weights(trained)]
    end = trained.run_epoch()
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(trained), strict=True))
    assert 0 <= end.metrics["train/robust_accuracy"] <= 1
    assert "train/robust_accuracy/class_09" in end.metrics


def test_is_a_function_of_the_seed(name: str) -> None:
    first, second, other = trainer(name), trainer(name), trainer(name, seed=1)
    for one in (first, second, other):
        one.run(lambda end: None)
    assert same(first, second) and not same(first, other)


@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_one_epoch_restored_and_the_rest_equal_one_go(name: str, kind: str) -> None:
    """Cut in the middle of a warm-up by another method, with averaged weights, or without either."""

    def new() -> object:
        if kind == "plain":
            return trainer(name)
        first = WarmUp(METHODS["dafa"](eps=0.1, step_size=0.05, num_steps=2), 1)
        return trainer(name, options=Options(averaging="fawa", averaging_start=0, averaging_floor=0), first=first)

    whole, half, rest = new(), new(), new()
    whole.run(lambda end: None)
    half.run_epoch()
    torch.randn(7)  # whatever else happened in the process must not matter
    rest.load_state_dict(half.state_dict())
    rest.run(lambda end: None)
    assert equal(whole.state_dict(), rest.state_dict())
    assert equal(whole.deployed.state_dict(), rest.deployed.state_dict())


def test_state_survives_a_checkpoint(name: str, tmp_path: object) -> None:
    """Whatever a method keeps, it can be loaded without running code that came with it."""
    trained = trainer(name)
    trained.run_epoch()
    torch.save(trained.state_dict(), f"{tmp_path}/state.pt")
    assert equal(trained.state_dict(), torch.load(f"{tmp_path}/state.pt", weights_only=True))


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_a_step_is_whole(name: str, num_classes: int) -> None:
    """A scalar loss, detached (B,) signals, an unchanged batch, a student back in training, for any number of
    classes, one of them absent."""
    method, batch = ready(name, num_classes), images(24, num_classes)
    before = [tensor.clone() for tensor in batch]
    (loss, per_sample), student = stepped(method, batch, num_classes)
    assert all(torch.equal(a, b) for a, b in zip(before, batch, strict=True))
    assert loss.ndim == 0 and loss.isfinite() and all(grad.isfinite().all() for grad in gradients(student))
    assert all(value.shape == (24,) and not value.requires_grad for value in per_sample.values())
    assert all(value.isfinite().all() for value in per_sample.values())
    assert {"adv_risk", "adv_correct"} <= per_sample.keys()
    assert student.training and all(module.training for module in student.modules())


def test_teachers_are_left_alone(name: str) -> None:
    """Even one that could be trained gets no gradient, and no running statistic moves."""

    class Open(teachers.Network):
        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            model.requires_grad_(True)

    method, batch, student = ready(name), images(24, 10), network(seed=1)
    asked = {role: Open(network(seed=7)) for role in ROLES}
    before = {role: {k: v.clone() for k, v in asked[role].model.state_dict().items()} for role in ROLES}
    method.step(student, asked, batch).loss.backward()
    for role in ROLES:
        assert all(p.grad is None for p in asked[role].model.parameters())
        assert equal(before[role], dict(asked[role].model.state_dict()))


def test_attack_moves_no_batch_norm_statistics(name: str) -> None:
    """One training forward for each term of the loss: an attack in train mode would add `num_steps` more."""
    _, student = stepped(ready(name, num_steps=6), images(20, 10))
    counts = {m.num_batches_tracked.item() for m in student.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts <= FORWARDS.get(name, {1, 2})


def test_attack_mode_train_does_move_them(name: str) -> None:
    _, student = stepped(ready(name, num_steps=6, attack_mode="train"), images(20, 10))
    counts = {m.num_batches_tracked.item() for m in student.modules() if isinstance(m, nn.BatchNorm2d)}
    assert min(counts) >= 7


def test_extreme_logits_stay_finite(name: str) -> None:
    """Logits of +-1000 in student and teachers: exp, log(softmax) and 0 * log(0) would all end in nan."""

    def loud(seed: int) -> nn.Module:
        model = network(seed=seed)
        with torch.no_grad():
            size = model.eval()(images(24, 10).x).abs().amax()
            model.linear.weight *= 1000 / size
            model.linear.bias *= 1000 / size
        return model

    method, student = ready(name), loud(1).train()
    asked = {role: teachers.Network(loud(7 + k)) for k, role in enumerate(ROLES)}
    loss, per_sample = method.step(student, asked, images(24, 10))
    loss.backward()
    assert loss.isfinite() and all(grad.isfinite().all() for grad in gradients(student))
    assert all(value.isfinite().all() for value in per_sample.values())


@pytest.mark.parametrize("size", [1, 2])
def test_tiny_batches(name: str, size: int) -> None:
    (loss, per_sample), student = stepped(ready(name), images(size, 10))
    assert loss.isfinite() and all(grad.isfinite().all() for grad in gradients(student))
    assert all(value.shape == (size,) for value in per_sample.values())


def test_bfloat16_autocast_stays_finite(name: str) -> None:
    method, batch = ready(name), images(24, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (loss, per_sample), student = stepped(method, batch)
    assert loss.isfinite() and all(grad.isfinite().all() for grad in gradients(student))
    assert all(value.isfinite().all() for value in per_sample.values())


def test_an_epoch_without_a_class_leaves_finite_state(name: str) -> None:
    """Class means are nan where a class was not seen; nothing a method keeps may become so."""
    trained = trainer(name)
    rows = (trained.train.labels != 4).nonzero()[:, 0]
    split = small()
    trained.train = trained.monitor = type(split)(split.images[rows], split.labels[rows], split.ids[rows], 10)
    for _ in range(2):
        trained.run_epoch()

    def tensors(state: object) -> list[Tensor]:
        if isinstance(state, dict):
            return [found for value in state.values() for found in tensors(value)]
        return [state] if isinstance(state, Tensor) else []

    unset = {"smoothed"}  # nan says: no risk has been seen yet
    kept = {key: value for key, value in trained.method.state_dict().items() if key not in unset}
    assert all(value.isfinite().all() for value in tensors(kept))
    assert all(value.isfinite().all() for value in weights(trained))


def test_every_knob_is_checked_and_explained(name: str) -> None:
    for knob, field in knobs(METHODS[name]).items():
        assert checked(METHODS[name], knob, str(field.default)) == field.default
        if field.metadata["low"] is not None:
            with pytest.raises(UsageError, match=knob):
                checked(METHODS[name], knob, field.metadata["low"] - 1)
        if field.metadata["options"]:
            with pytest.raises(UsageError, match="unknown"):
                checked(METHODS[name], knob, "no-such-word")
        if isinstance(field.default, bool):
            assert checked(METHODS[name], knob, "False") is False
            with pytest.raises(UsageError, match="true or false"):
                checked(METHODS[name], knob, "maybe")


def test_is_documented(name: str) -> None:
    """A source, an idea and a cost, and bases of a composed method that have them."""
    pages = [cls for cls in METHODS[name].__mro__ if cls.__module__.startswith("absld_search.core.methods.")]
    text = "\n".join(cls.__doc__ or "" for cls in pages)
    assert "Formula" in text and METHODS[name].cost
