"""PGD against a linear model, whose best perturbation is known in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from absld_search.core.attacks import frozen_batch_norm, pgd, start_noise


@given(st.integers(0, 2**31), st.floats(0.01, 0.3))
def test_reaches_the_optimum_of_a_linear_loss(seed: int, eps: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(12, generator=generator, dtype=torch.float64)
    x = torch.rand(5, 12, generator=generator, dtype=torch.float64)
    found = pgd(x, lambda z: z @ weights, eps, eps / 4, 10, torch.zeros_like(x))
    assert torch.allclose(found, (x + eps * weights.sign()).clamp(0, 1), atol=1e-12)


@given(st.integers(0, 2**31))
def test_stays_in_the_ball_of_each_sample_and_in_the_image(seed: int) -> None:
    torch.manual_seed(seed)
    x, radius = torch.rand(6, 1, 4, 4), torch.rand(6) * 0.2
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    found = pgd(x, lambda z: model(z)[:, 0], radius, radius, 7, start_noise(x, "uniform", 0.3))
    assert ((found - x).abs().amax((1, 2, 3)) <= radius + 1e-6).all()
    assert found.min() >= 0 and found.max() <= 1
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_ascends() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)), torch.rand(9, 8), torch.arange(9) % 3
    loss = lambda z: nn.functional.cross_entropy(model(z), y, reduction="none")  # noqa: E731
    found = pgd(x, loss, 0.1, 0.02, 20, torch.zeros_like(x))
    assert (loss(found) >= loss(x) - 1e-6).all()


def test_zero_radius_changes_nothing() -> None:
    x = torch.rand(3, 5)
    assert torch.equal(pgd(x, lambda z: z.sum(1), 0.0, 0.1, 3, torch.zeros_like(x)), x)


def test_batch_norm_is_frozen_and_the_mode_comes_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with frozen_batch_norm(model):
        model(torch.rand(8, 4))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_start_noise() -> None:
    x = torch.zeros(1000)
    assert start_noise(x, "uniform", 0.2).abs().max() <= 0.2
    assert start_noise(x, "gaussian", 0.2).std() == pytest.approx(0.001, rel=0.2)
    with pytest.raises(ValueError, match="gaussian"):
        start_noise(x, "gauss", 0.2)
