"""Writing over what nobody reads again: no bit differs, and what somebody reads is left."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from absld_search.core import in_place, models
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
