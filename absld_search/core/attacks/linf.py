"""Projected gradient ascent in the L-infinity ball, and what an attack needs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from absld_search.core import folding, speed
from absld_search.core.losses import Objective, Pull

LossFn = Callable[[Tensor], Tensor]  # x (B, ...) -> per-sample loss (B,) to ascend


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside, and as it was afterwards: an attack must not move running statistics.

    Inside, gradients flow to the input alone: calls go to a copy with batch norm folded into its convolutions,
    unless the model's `speed.Speed` says otherwise or nothing can be folded.
    """
    training = model.training
    model.eval()
    try:
        with folding.folded(model) if speed.of(model).fold else nullcontext():
            yield
    finally:
        model.train(training)


def start_noise(x: Tensor, start: str, eps: Tensor | float) -> Tensor:
    """One draw from the default generator: "gaussian" 0.001 * N(0, 1) as TRADES, "uniform" in the eps-ball."""
    if start == "gaussian":
        return 0.001 * torch.randn_like(x)
    if start == "uniform":
        return (2 * torch.rand_like(x) - 1) * per_sample(eps, x)
    raise ValueError(f"start must be 'gaussian' or 'uniform', not {start!r}")


def pgd(
    x: Tensor,
    loss_fn: LossFn,
    eps: Tensor | float,
    step_size: Tensor | float,
    num_steps: int,
    noise: Tensor,
) -> Tensor:
    """Projected gradient ascent in the L-infinity ball (Madry et al., ICLR 2018, arXiv:1706.06083).

    `x` (B, ...) in [0, 1]; `eps`, `step_size` in pixel units, a number or (B,); `noise` shaped as `x` is where
    it starts. Returns the last iterate, detached, inside both the ball and [0, 1]. Needs no gradient of any
    parameter and leaves none behind.
    """

    def gradient(x_adv: Tensor) -> Tensor:
        with torch.enable_grad():
            loss = loss_fn(x_adv).sum()
        return torch.autograd.grad(loss, x_adv)[0]

    return ascend(x, gradient, eps, step_size, num_steps, noise)


def ascend(
    x: Tensor,
    gradient: Callable[[Tensor], Tensor],
    eps: Tensor | float,
    step_size: Tensor | float,
    num_steps: int,
    noise: Tensor,
) -> Tensor:
    """The same for whoever has the gradient itself: x (B, ...), which requires one, -> gradient (B, ...)."""
    eps, step_size = per_sample(eps, x), per_sample(step_size, x)
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    x_adv = (x + noise).clamp(0, 1)
    for _ in range(num_steps):
        sign = gradient(x_adv.requires_grad_(True)).sign()
        x_adv = x_adv.detach().add(sign.mul_(step_size)).clamp_(low, high)
    return x_adv.detach()


def input_gradient(model: nn.Module, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """(gradient of the summed objective at x, which requires one, logits there (B, C)), both detached.

    Where the objective knows its gradient at the logits, backward starts there and its value is never computed.
    """
    with torch.enable_grad():
        logits = model(x)
        if isinstance(objective, Pull) and speed.of(model).closed_form:
            (found,) = torch.autograd.grad(logits, x, objective.pull(logits.detach()).to(logits.dtype))
        else:
            (found,) = torch.autograd.grad(objective(logits, x).sum(), x)
    return found, logits.detach()


def per_sample(value: Tensor | float, x: Tensor) -> Tensor | float:
    """A (B,) tensor in `x`'s type, reshaped so that it broadcasts over `x`; a number as it is."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return value
