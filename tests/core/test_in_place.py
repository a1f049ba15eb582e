"""Writing over what nobody reads again: no bit differs, and what somebody reads is left."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from absld_search.core import in_place, models
from absld_search.core.attacks import frozen_batch_norm, input_gradient
from absld_search.core.losses import CrossEntropy
from benchmarks.train_step import settle
from tests.core.test_folding import FOLDABLE


def written(model: nn.Module) -> Counter[object]:
    assert isinstance(model, fx.GraphModule)
    return Counter(node.target for node in model.graph.nodes if node.op == "call_function")


def value_and_gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(True)
    out = model(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    return out, gradient


@pytest.mark.parametrize("name", FOLDABLE)
def test_no_bit_of_a_network_differs(name: str) -> None:
    model = models.build(name, 10, 3, 0)
    settle(model)
    model.eval().requires_grad_(False)
    x = torch.rand(2, 3, 8 if name == "cnn-8" else 16, 8 if name == "cnn-8" else 16)
    wanted = value_and_gradient(model, x)
    found = in_place.rewritten(copy.deepcopy(model))
    assert all(torch.equal(a, b) for a, b in zip(value_and_gradient(found, x), wanted, strict=True))
    assert dict(found.named_parameters()).keys() <= dict(model.named_parameters()).keys()


def test_residual_blocks_keep_what_their_shortcut_reads() -> None:
    found = written(in_place.rewritten(models.build("resnet-8-4", 10, 3, 0).eval()))
    assert found[in_place._add] == 3 and found[in_place.relu_once] == 3
    assert found[F.relu_] == 4, "the stem's and the blocks' last are read by two"


class Staircase(torch.autograd.Function):
    """Rounds, and lets the gradient through as if it had not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 4).round() / 4

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Foreign(nn.Module):
    """A network with a gradient of its own and a tensor made on the way: neither leaves a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.ones(4, dtype=x.dtype)
        return self.linear(F.relu(self.norm(self.conv(Staircase.apply(x)))).mean((2, 3)) * made)


def test_others_networks_keep_their_own_forward_in_an_attack() -> None:
    model = Foreign().double()
    settle(model)
    model.eval()
    x = torch.rand(3, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    loss = CrossEntropy(torch.arange(3))
    wanted, _ = input_gradient(model, x, loss)
    with frozen_batch_norm(model):
        assert model._compiled_call_impl is not None, "folded all the same"
        found, _ = input_gradient(model, x, loss)
    assert wanted.norm() > 0 and torch.allclose(found, wanted, rtol=1e-12)
    assert in_place.fits(models.build("resnet-8-4", 10, 3, 0)) and not in_place.fits(model)


def test_what_is_listened_to_is_not_rewritten() -> None:
    model = models.build("resnet-8-4", 10, 3, 0).eval().requires_grad_(False)
    heard: list[Tensor] = []
    model.layer1[0].conv1.register_forward_hook(lambda module, args, out: heard.append(out))
    assert not in_place.fits(model)
    with frozen_batch_norm(model):
        model(torch.rand(2, 3, 8, 8))
    assert (heard[-1] < 0).any(), "what the convolution gave, not its ReLU"


def test_second_derivatives_are_the_networks_own() -> None:
    model = models.build("resnet-8-4", 10, 3, 0).double()
    settle(model)
    model.eval().requires_grad_(False)
    found = []
    for network in (model, in_place.rewritten(copy.deepcopy(model))):
        x = torch.linspace(0, 1, 2 * 3 * 8 * 8, dtype=torch.float64).view(2, 3, 8, 8).requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    assert found[1].norm() > 0 and torch.allclose(*found, rtol=1e-12)


class Reader(nn.Module):
    """What comes out of a convolution is read by more than the ReLU."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 3, 3, padding=1), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how == "twice":
            return F.relu(y) + y
        if self.how == "input":
            return F.relu(x) + y
        if self.how == "itself":
            return y + y
        if self.how == "gradient":
            z = F.relu(y)
            return self.conv(z) + z
        return y + F.relu(x).sum(0)  # broadcast over the batch


@pytest.mark.parametrize("how", ["twice", "input", "itself", "gradient", "broadcast"])
def test_what_somebody_else_reads_is_left(how: str) -> None:
    model, x = Reader(how).requires_grad_(False), torch.randn(2, 3, 4, 4)
    before = x.clone()
    wanted = value_and_gradient(model, x)
    found = value_and_gradient(in_place.rewritten(model), x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)) and torch.equal(x, before)


def test_a_relu_module_is_taken_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    found = in_place.rewritten(model)
    assert written(found) == {in_place.relu_once: 1}
    assert all(map(torch.equal, value_and_gradient(found, x), value_and_gradient(model, x)))
