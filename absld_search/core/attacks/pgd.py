"""Projected gradient ascent for evaluation: restarts, choice of loss, and fooled images leave the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absld_search.core.attacks import linf
from absld_search.core.attacks.base import Draws, Radius, box, radii, right
from absld_search.core.losses import cross_entropy, cw_loss, kl_div, soft_labels

Objective = Callable[[Tensor, Tensor], Tensor]  # logits (B, C) and which rows they are of (B,) -> loss (B,)
LOSSES = ("ce", "kl", "margin")
STARTS = ("uniform", "gaussian", "none")


@dataclass(frozen=True)
class Pgd:
    """PGD-k (Madry et al., ICLR 2018, arXiv:1706.06083): the ball's point that k steps along the gradient's sign reach.

    loss "ce" is the cross-entropy; "kl" the divergence from the model's own answer to the clean image (TRADES,
    arXiv:1901.08573); "margin" the best wrong logit minus the right one, cut off above 50 (Carlini and Wagner,
    arXiv:1608.04644), which makes this the attack that tables call CW-inf.

    Differs from the released code: with `drop`, an image is done with as soon as any iterate fools the model, while
    the releases look at the last iterate alone. So no image survives here that is lost there, and fewer steps
    are needed; without `drop` the last iterate is returned as there.
    """

    num_steps: int = 20
    step_size: Radius | None = None  # None: a quarter of the radius
    restarts: int = 1
    start: str = "uniform"
    loss: str = "ce"
    drop: bool = True

    def __post_init__(self) -> None:
        for name, value, valid in (("loss", self.loss, LOSSES), ("start", self.start, STARTS)):
            if value not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}, not {value!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        found, left, radius = x.detach().clone(), torch.arange(len(x), device=x.device), radii(eps, x)
        step = radius / 4 if self.step_size is None else radii(self.step_size, x)
        for number in range(self.restarts):
            # A restart is given to those that the one before did not fool; the last one's point stands otherwise.
            found[left] = self._once(model, x[left], y[left], radius[left], step[left], draws, left, number)
            left = left[right(model, found[left], y[left])]
        return found

    def _once(
        self, model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, step: Tensor, draws: Draws, rows: Tensor,
        number: int,
    ) -> Tensor:  # fmt: skip
        noise = _noise(self.start, x, radius, draws, rows, number)
        objective = _objective(self.loss, model, x, y)
        if self.drop:
            return ascend(model, x, y, radius, step, self.num_steps, noise, objective)
        everyone = torch.arange(len(x), device=x.device)
        flat = (radius.flatten(), step.flatten())
        return linf.pgd(x, lambda x_adv: objective(model(x_adv), everyone), *flat, self.num_steps, noise)


def ascend(
    model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, step: Tensor, num_steps: int, noise: Tensor,
    loss: Objective, decay: Callable[[int], float] = lambda turn: 1.0,
) -> Tensor:  # fmt: skip
    """The iterate that first fools the model, or the last one: (B, ...). `radius`, `step` as `radii` gives them;
    `decay` says for each step by what `step` is multiplied."""
    low, high = box(x, radius)
    found = (x + noise).clamp(0, 1)
    rows, x_adv, step = torch.arange(len(x), device=x.device), found.clone(), step.expand_as(radius)
    for turn in range(num_steps):
        x_adv.requires_grad_(True)
        with torch.enable_grad():
            logits = model(x_adv)
            (gradient,) = torch.autograd.grad(loss(logits, rows).sum(), x_adv)
        x_adv = x_adv.detach()
        standing = logits.detach().argmax(1) == y[rows]
        if not standing.all():
            found[rows] = x_adv
            rows, x_adv, gradient = rows[standing], x_adv[standing], gradient[standing]
            low, high, step = low[standing], high[standing], step[standing]
        if not len(rows):
            return found
        x_adv = (x_adv + decay(turn) * step * gradient.sign()).clamp(low, high)
    found[rows] = x_adv
    return found


def _noise(start: str, x: Tensor, radius: Tensor, draws: Draws, rows: Tensor, number: int) -> Tensor:
    if start == "none":
        return torch.zeros_like(x)
    drawn = draws.per_image(rows, x.shape[1:], number).to(x)
    if start == "uniform":
        return (2 * drawn - 1) * radius
    half = torch.finfo(x.dtype).eps / 2  # the inverse of the normal distribution is infinite at 0 and 1
    return 0.001 * torch.special.ndtri(drawn.clamp(half, 1 - half))


def _objective(loss: str, model: nn.Module, x: Tensor, y: Tensor) -> Objective:
    if loss == "kl":
        with torch.no_grad():
            clean = soft_labels(model(x))
        return lambda logits, rows: kl_div(clean[rows], logits)
    of = cross_entropy if loss == "ce" else cw_loss
    return lambda logits, rows: of(logits, y[rows])


PGD_SAT = Pgd(num_steps=20, step_size=None, start="uniform", loss="ce")
"""PGD-SAT: 20 steps of a quarter of the radius, 2/255 at 8/255, as MadryLab/cifar10_challenge (arXiv:1706.06083)."""


def pgd_trades(eps: Radius) -> Pgd:
    """PGD-TRADES: 20 steps of 0.003 at a radius of 0.031, and in that proportion at another (arXiv:1901.08573)."""
    return Pgd(num_steps=20, step_size=eps * (0.003 / 0.031), start="uniform", loss="ce")
