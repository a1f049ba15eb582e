"""The targeted fast adaptive boundary attack, which stops for an image once it is within the radius."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from absld_search.core.attacks.apgd import ranked_classes
from absld_search.core.attacks.base import Draws, Radius, radii, right

OVERSHOOT = 1.05  # how far beyond the hyperplane a projection goes
TOWARDS_IMAGE = 0.1  # largest weight of the image's own projection
BACKWARD = 0.9  # an adversarial point keeps this share of its distance and goes on from there


@dataclass
class _State:
    """What an image carries that is not yet adversarial within its radius; fields are (b, ...), in one order."""

    row: Tensor
    y: Tensor
    target: Tensor
    image: Tensor
    radius: Tensor  # (b,)
    x: Tensor

    def keep(self, standing: Tensor) -> None:
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name)[standing])


@dataclass(frozen=True)
class FabTargeted:
    """FAB-T (Croce and Hein, ICML 2020, arXiv:1907.02044): steps onto the linearised boundary, drawn to the image.

    For each of the `targets` likeliest wrong classes of the clean image in turn, from the image itself, without
    random numbers.

    Differs from the released code: an image is done with once it is adversarial within its radius (the release goes on
    to look for a nearer point, which changes no verdict), and no gradient of any parameter is computed. The
    projection onto the hyperplane is pyautoattack's. Not done: reusing a verdict's forward pass for the next step,
    since most verdicts are "adversarial" (80 % on a digits student), after which the point moves and is asked anew.
    """

    num_steps: int = 100
    targets: int = 9

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        x, found, radius = x.detach(), x.detach().clone(), radii(eps, x).flatten()
        ranked = ranked_classes(model, x)
        left = torch.nonzero(ranked[:, 0] == y)[:, 0]
        for place in range(1, min(self.targets, ranked.shape[1] - 1) + 1):
            if not len(left):
                break
            found[left], near = self._towards(model, x[left], y[left], ranked[left, place], radius[left])
            left = left[~near]
        return found

    def _towards(self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """For each image the point found, or itself; and whether one was found within the radius (B,)."""
        found, near = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        state = _State(torch.arange(len(x), device=x.device), y, target, x, radius, x)
        for _ in range(self.num_steps):
            state.x = _step(model, state)
            _settle(model, state, found, near)
            if not len(state.row):
                break
        return found, near


def _settle(model: nn.Module, state: _State, found: Tensor, near: Tensor) -> None:
    """Let those go that are adversarial within the radius; draw adversarial points beyond it back to the image."""
    wrong = ~right(model, state.x, state.y)
    if not wrong.any():
        return
    within = wrong & ((state.x - state.image).abs().flatten(1).amax(1) <= state.radius)
    if within.any():
        found[state.row[within]], near[state.row[within]] = state.x[within], True
        state.keep(~within)
        wrong = wrong[~within]
    back = state.image + (state.x - state.image) * BACKWARD
    state.x = torch.where(wrong.view(-1, *[1] * (back.ndim - 1)), back, state.x)


def _lead(model: nn.Module, state: _State) -> tuple[Tensor, Tensor]:
    """The target's logit minus the right one (b,), and its gradient, shaped as x."""
    x = state.x.detach().requires_grad_(True)
    rows = torch.arange(len(x), device=x.device)
    with torch.enable_grad():
        logits = model(x)
        lead = -(logits[rows, state.y] - logits[rows, state.target])
    (slope,) = torch.autograd.grad(lead.sum(), x)
    return lead.detach(), slope


def _step(model: nn.Module, state: _State) -> Tensor:
    """Where the two projections onto the linearised boundary, of the iterate and of the image, lead."""
    from pyautoattack.fab_projections import projection_linf  # here alone: training runs where there is only torch

    x, image = state.x, state.image
    lead, slope = _lead(model, state)
    normal, flat = slope.flatten(1), x.flatten(1)
    offset = (slope * x).flatten(1).sum(1) - lead
    points = torch.cat((flat, image.flatten(1)))
    moves = projection_linf(points, normal.repeat(2, 1), offset.repeat(2))
    lengths = moves.abs().amax(1).clamp_min(1e-8).view(2, -1, *[1] * (x.ndim - 1))
    own, images = moves.view(2, *x.shape)
    share = (lengths[0] / (lengths[0] + lengths[1])).clamp(0, TOWARDS_IMAGE)
    return ((x + OVERSHOOT * own) * (1 - share) + (image + images * OVERSHOOT) * share).clamp(0, 1)
