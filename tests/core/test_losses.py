"""Losses against their definitions, at ordinary and at extreme logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from absld_search.core.losses import ClassMeans, cross_entropy, cw_loss, kl_div, margin, soft_labels

seeds = st.integers(0, 2**31)


def draw(seed: int, *shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds)
def test_kl_is_the_definition_and_never_negative(seed: int) -> None:
    targets, logits = soft_labels(draw(seed, 7, 5)), draw(seed + 1, 7, 5)
    expected = F.kl_div(F.log_softmax(logits, 1), targets, reduction="none").sum(1)
    assert torch.allclose(kl_div(targets, logits), expected, atol=1e-12)
    assert (kl_div(targets, logits) > -1e-12).all()
    assert torch.allclose(kl_div(soft_labels(logits), logits), torch.zeros(7, dtype=torch.float64), atol=1e-12)


@given(seeds, st.sampled_from([1e2, 1e3, 1e4]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_extreme_logits_give_finite_loss_and_gradient(seed: int, scale: float, dtype: torch.dtype) -> None:
    targets = soft_labels(draw(seed, 4, 10, scale=scale)).to(dtype)
    logits = draw(seed + 1, 4, 10, scale=scale).to(dtype).requires_grad_()
    loss = kl_div(targets, logits)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all() and gradient.isfinite().all()


N3 = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2**-5, 2**-5)}  # tolerance: relative of the loss, and of gradients


@settings(max_examples=1000, deadline=None)
@given(seeds, st.sampled_from([1.0, 30.0, 1e3]), st.sampled_from([0.05, 0.5, 5.0, 100.0]), st.sampled_from(list(N3)))
def test_n3_extreme_logits_and_temperatures_against_float64(
    seed: int, scale: float, temperature: float, dtype: torch.dtype
) -> None:
    teacher = draw(seed, 4, 10).clamp(-1, 1).mul(scale).to(dtype)
    student = draw(seed + 1, 4, 10).clamp(-1, 1).mul(scale).to(dtype)
    temperatures = torch.full((4,), temperature, dtype=dtype)

    def value(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        logits = student.to(kind).requires_grad_()
        loss = kl_div(soft_labels(teacher.to(kind), temperatures.to(kind)), logits)
        return loss.detach().double(), torch.autograd.grad(loss.sum(), logits)[0].double()

    (loss, gradient), (expected, slope) = value(dtype), value(torch.float64)
    assert loss.isfinite().all() and gradient.isfinite().all()
    size = 1 + expected.abs() + student.double().abs().amax(1)  # the terms of the sum, which cancel in their difference
    relative, absolute = N3[dtype]
    if dtype == torch.float32:
        assert ((loss - expected).abs() <= relative * size).all()
        assert ((gradient - slope).abs() <= absolute).all()
    else:  # the quotient of a logit of 1000 and a temperature of 0.05 is rounded to 64: labels near a tie may turn
        near = (teacher.double() / temperature).sort(1).values.diff(dim=1)[:, -1] < 2**-7 * scale / temperature + 1
        assert (((loss - expected).abs() <= relative * size) | near).all()
        assert (((gradient - slope).abs() <= absolute).all(1) | near).all()


def test_soft_labels_leave_the_logits_alone() -> None:
    logits, temperature = draw(0, 6, 3), torch.tensor([0.5, 1, 2, 3, 4, 5], dtype=torch.float64)
    before = logits.clone()
    labels = soft_labels(logits, temperature)
    assert torch.equal(logits, before)
    for row in range(6):
        assert torch.allclose(labels[row], F.softmax(before[row] / temperature[row], 0), atol=1e-15)


@given(seeds)
def test_margin_is_positive_exactly_where_the_sample_is_lost(seed: int) -> None:
    logits, y = draw(seed, 20, 4), torch.arange(20) % 4
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)
    assert torch.equal(cw_loss(logits, y, confidence=1.0), margin(logits, y).clamp(max=1.0))


@given(seeds)
def test_class_means_over_batches_are_class_means(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    y, values = torch.randint(0, 3, (50,), generator=generator), draw(seed, 50)
    means = ClassMeans(4, "cpu")
    for rows in torch.arange(50).split(7):
        means.add(y[rows], {"risk": values[rows]})
    for label in range(3):
        assert torch.isclose(means.means()["risk"][label], values[y == label].mean())
    assert means.means()["risk"][3].isnan()
    assert abs(means.overall()["risk"] - values.mean().item()) < 1e-12


def test_cross_entropy_is_per_sample() -> None:
    logits, y = draw(0, 5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.allclose(cross_entropy(logits, y), -F.log_softmax(logits, 1).gather(1, y[:, None])[:, 0])
