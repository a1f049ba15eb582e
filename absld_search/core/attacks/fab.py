"""The targeted fast adaptive boundary attack, which stops for an image once it is within the radius."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from pyautoattack.fab_projections import projection_linf
from torch import Tensor, nn

from absld_search.core.attacks.apgd import ranked_classes
from absld_search.core.attacks.base import Draws, Radius, radii

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
    lead: Tensor  # (b,): the target's logit minus the right one, at x
    slope: Tensor  # its gradient

    def keep(self, standing: Tensor) -> None:
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name)[standing])


@dataclass(frozen=True)
class FabTargeted:
    """FAB-T (Croce and Hein, ICML 2020, arXiv:1907.02044): steps onto the linearised boundary, drawn to the image.

    For each of the `targets` likeliest wrong classes of the clean image in turn, from the image itself, without
    random numbers.

    Differs from the released code: an image is done with once it is adversarial within its radius (the release goes on
    to look for a nearer point, which changes no verdict); the forward pass that asks for a step's verdict serves as
    the next step's; no gradient of any parameter is computed. The projection onto the hyperplane is pyautoattack's.
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
        lead, slope, _ = _ask(model, x, y, target)
        state = _State(torch.arange(len(x), device=x.device), y, target, x, radius, x, lead, slope)
        for number in range(self.num_steps):
            state.x = _step(state)
            last = number == self.num_steps - 1
            state.lead, state.slope, right = _ask(model, state.x, state.y, state.target, last)
            self._settle(model, state, right, found, near, last)
            if not len(state.row):
                break
        return found, near

    def _settle(self, model: nn.Module, state: _State, right: Tensor, found: Tensor, near: Tensor, last: bool) -> None:
        """Let those go that are adversarial within the radius; move adversarial points beyond it back towards it."""
        if right.all():
            return
        within = ~right & ((state.x - state.image).abs().flatten(1).amax(1) <= state.radius)
        found[state.row[within]], near[state.row[within]] = state.x[within], True
        beyond = (~right & ~within)[~within]
        state.keep(~within)
        at = torch.nonzero(beyond)[:, 0]
        if not len(at) or last:
            return
        back = state.image[at] + (state.x[at] - state.image[at]) * BACKWARD
        lead, slope, _ = _ask(model, back, state.y[at], state.target[at])
        state.x, state.lead, state.slope = state.x.clone(), state.lead.clone(), state.slope.clone()
        state.x[at], state.lead[at], state.slope[at] = back, lead, slope


def _ask(model: nn.Module, x: Tensor, y: Tensor, target: Tensor, last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(target's lead (b,), its gradient as x, whether the model is right (b,)); no gradient after the last step."""
    x = x.detach().requires_grad_(not last)
    rows = torch.arange(len(x), device=x.device)
    with torch.set_grad_enabled(not last):
        logits = model(x)
        lead = -(logits[rows, y] - logits[rows, target])
    slope = x if last else torch.autograd.grad(lead.sum(), x)[0]
    return lead.detach(), slope.detach(), logits.detach().argmax(1) == y


def _step(state: _State) -> Tensor:
    """Where the two projections onto the linearised boundary, of the iterate and of the image, lead."""
    x, image, slope = state.x, state.image, state.slope
    normal, flat = slope.flatten(1), x.flatten(1)
    offset = (slope * x).flatten(1).sum(1) - state.lead
    points = torch.cat((flat, image.flatten(1)))
    moves = projection_linf(points, normal.repeat(2, 1), offset.repeat(2))
    lengths = moves.abs().amax(1).clamp_min(1e-8).view(2, -1, *[1] * (x.ndim - 1))
    own, images = moves.view(2, *x.shape)
    share = (lengths[0] / (lengths[0] + lengths[1])).clamp(0, TOWARDS_IMAGE)
    return ((x + OVERSHOOT * own) * (1 - share) + (image + images * OVERSHOOT) * share).clamp(0, 1)
