"""Minimal filtering is a convolution: its values, its gradient, and where it stands aside."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from absld_search.core import folding, models, speed, winograd
from absld_search.core.attacks import frozen_batch_norm, input_gradient
from absld_search.core.logit_bank import Network
from absld_search.core.losses import CrossEntropy
from absld_search.core.speed import Speed
from benchmarks.train_step import settle


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (1, 2, 2, 2), (2, 4, 6, 10), (2, 3, 5, 4), (2, 3, 4, 7)])
def test_values_and_gradient_are_the_convolutions(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], 7, 3, padding=1, bias=bias).double()
    wide = winograd.WideConv(copy.deepcopy(conv).requires_grad_(False))
    wide.prepare()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(shape[0], 7, *shape[2:], dtype=torch.float64)
    (wanted,), (found,) = (torch.autograd.grad(m(x), x, direction) for m in (conv, wide))
    assert (wide(x) - conv(x)).norm() <= 1e-13 * conv(x).norm()
    assert (found - wanted).norm() <= 1e-13 * wanted.norm()


def test_the_answer_lies_in_memory_as_the_question_does() -> None:
    wide = winograd.WideConv(nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False))
    wide.prepare()
    x = torch.rand(2, 3, 4, 4)
    assert wide(x).is_contiguous() and wide(x).view(2, -1).shape == (2, 64)
    assert wide(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_second_derivatives_are_the_convolutions() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1).double().requires_grad_(False)
    wide = winograd.WideConv(copy.deepcopy(conv))
    wide.prepare()
    found = []
    for module in (conv, wide):
        x = torch.linspace(-1, 1, 96, dtype=torch.float64).view(2, 3, 4, 4).requires_grad_(True)
        (gradient,) = torch.autograd.grad(module(x).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    assert torch.allclose(*found, rtol=1e-12)


def test_the_filters_follow_the_weights() -> None:
    conv, x = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False), torch.rand(2, 3, 4, 4)
    wide = winograd.WideConv(conv)
    for _ in range(2):
        conv.weight.mul_(-1.5)
        wide.prepare()
        assert torch.allclose(wide(x), F.conv2d(x, conv.weight, conv.bias, padding=1), atol=1e-5)


@pytest.mark.parametrize(
    "words",
    [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}, {"kernel_size": 5}],
    ids=str,
)
def test_what_is_no_such_convolution_is_left_alone(words: dict[str, object]) -> None:
    usual: dict[str, object] = {"kernel_size": 3, "padding": 1}
    assert winograd.fits(nn.Conv2d(winograd.WIDE, winograd.WIDE, **usual))  # type: ignore[arg-type]
    assert not winograd.fits(nn.Conv2d(winograd.WIDE, winograd.WIDE, **usual | words))  # type: ignore[arg-type]
    assert not winograd.fits(nn.Conv2d(winograd.WIDE - 2, winograd.WIDE, 3, padding=1))


def frozen_gradient(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with frozen_batch_norm(model):
        return input_gradient(model, x.clone().requires_grad_(True), CrossEntropy(torch.arange(len(x)) % 10))[0]


@pytest.mark.parametrize("name", ["resnet-18", "preact-resnet-18"])
def test_an_attack_uses_it_where_layers_are_wide_and_the_switch_is_on(name: str) -> None:
    model = models.build(name, 10, 3, 0).double()
    settle(model)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    found = []
    for on, calls in ((True, 6), (False, 0)):  # three layers of 512 channels, forward and backward
        speed.choose(model, Speed(minimal_filters=on))
        with mock.patch.object(winograd, "filtered", wraps=winograd.filtered) as used:
            found.append(frozen_gradient(model, x))
        assert used.call_count == calls
    assert 0 < (found[0] - found[1]).norm() <= 1e-12 * found[1].norm()


def test_narrow_networks_and_bfloat16_do_without() -> None:
    wide, narrow = models.build("resnet-18", 10, 3, 0), models.build("resnet-8-16", 10, 3, 0)
    x = torch.rand(2, 3, 16, 16)
    with mock.patch.object(winograd, "filtered", wraps=winograd.filtered) as used:
        frozen_gradient(narrow, x)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            frozen_gradient(wide, x)
    assert used.call_count == 0


def test_a_teacher_is_settled_once_and_answers_as_it_did() -> None:
    model = models.build("wrn-10-10", 10, 3, 0).double().eval()
    settle(model)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        wanted = model(x)
        teacher = Network(model)
        with mock.patch.object(folding.Folded, "refresh", autospec=True, side_effect=folding.Folded.refresh) as fresh:
            found = [teacher(x), teacher(x)]
    assert fresh.call_count == 1 and torch.equal(*found)
    assert 0 < (found[0] - wanted).norm() <= 1e-12 * wanted.norm()
    assert torch.equal(model(x), wanted), "what was handed in is as it was"
    weights = dict(teacher.model.named_parameters())
    assert weights["conv1.weight"].is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for p in model.parameters())
    assert weights["block2.layer.0.conv2.weight"] is model.block2.layer[0].conv2.weight, "not folded, and not copied"


def test_a_wide_teacher_gives_an_image_the_same_bits_in_any_company() -> None:
    network = folding.settled(models.build("wrn-10-10", 10, 3, 0).eval().requires_grad_(False))
    x, order = torch.rand(16, 3, 16, 16), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    filled = torch.cat([x[:5], x[4:5].expand(11, -1, -1, -1)])
    assert torch.equal(network(x)[order], network(x[order]))
    assert torch.equal(network(x)[:5], network(filled)[:5])


def test_only_what_has_wide_layers_is_settled() -> None:
    narrow = models.build("resnet-8-16", 10, 3, 0).eval()
    assert folding.settled(narrow) is narrow
    wide = models.build("wrn-10-10", 10, 3, 0).eval()
    speed.choose(wide, Speed(minimal_filters=False))
    assert folding.settled(wide) is wide
    half = models.build("wrn-10-10", 10, 3, 0).eval().bfloat16()
    assert folding.settled(half) is half
