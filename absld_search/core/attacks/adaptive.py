"""Short restarts that learn from one another: where images fell before, and which are not worth another try."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absld_search.core.attacks.base import Draws, Radius, box, radii
from absld_search.core.attacks.pgd import ascend
from absld_search.core.losses import margin

START_STEPS = 7  # along a direction in the logits, before the margin is ascended


@dataclass(frozen=True)
class Adaptive:
    """Restarts of a few steps on the margin, in the manner of the Adaptive Auto Attack (Liu et al., CVPR 2022,
    arXiv:2203.05154).

    Each restart begins with steps that push the logits in a direction of its own: random at first; later towards the
    class to which most images of this class have fallen. Step sizes fall along a cosine from the radius to
    nothing. After each restart the images whose margin is furthest from falling leave, the more of them the later it
    is, and those that stay get longer restarts.

    Differs from the released code: one budget of restarts for all networks, no search for a step size, no detection
    of gradient masking. What fell where is counted over the batch, so a verdict may depend on its company.
    """

    restarts: int = 10
    num_steps: int = 10
    keep: float = 0.85  # share of the images left that get the next restart

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        found, rows, radius = x.detach().clone(), torch.arange(len(x), device=x.device), radii(eps, x)
        fallen: Tensor | None = None  # (C, C): images of a class that ended as another
        for number in range(self.restarts):
            images, labels = x[rows], y[rows]
            drawn = draws.per_image(rows, (2, *x.shape[1:]), number).to(x)
            start = self._start(model, images, labels, radius[rows], drawn, fallen)
            points = self._climb(model, images, labels, radius[rows], start - images, number)
            found[rows] = points
            with torch.no_grad():
                logits = model(points)
            fallen = _counted(logits, labels, fallen)
            rows = rows[_worth_it(margin(logits, labels), self.keep)]
            if not len(rows):
                break
        return found

    def _climb(self, model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, noise: Tensor, number: int) -> Tensor:
        steps = round(self.num_steps * (1 + number / 4))

        def decay(turn: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * turn / steps))

        return ascend(model, x, y, radius, radius, steps, noise, lambda logits, at: margin(logits, y[at]), decay)

    def _start(
        self, model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, drawn: Tensor, fallen: Tensor | None
    ) -> Tensor:
        """(B, ...): from a random point of the ball, steps of the whole radius along a direction in the logits."""
        low, high = box(x, radius)
        x_adv = (x + (2 * drawn[:, 0] - 1) * radius).clamp(low, high)
        towards: Tensor | None = None
        for _ in range(START_STEPS):
            x_adv.requires_grad_(True)
            with torch.enable_grad():
                logits = model(x_adv)
                towards = _direction(drawn[:, 1], y, logits.shape[1], fallen) if towards is None else towards
                (gradient,) = torch.autograd.grad((towards * logits).sum(), x_adv)
            x_adv = (x_adv.detach() + radius * gradient.sign()).clamp(low, high)
        return x_adv


def _direction(drawn: Tensor, y: Tensor, num_classes: int, fallen: Tensor | None) -> Tensor:
    """(B, C) in [-1, 1]: away from y, else random, or towards a class that others of the same class have fallen to.

    The random numbers are the first C of an image's own, used again where an image has fewer pixels.
    """
    flat = drawn.flatten(1)
    flat = flat.repeat(1, math.ceil((num_classes + 1) / flat.shape[1]))
    found = 2 * flat[:, :num_classes] - 1
    found = found.scatter(1, y[:, None], -found.gather(1, y[:, None]).abs())
    if fallen is None:
        return found
    shares = (fallen / fallen.sum(1, keepdim=True).clamp(min=1))[y].cumsum(1)
    target = (shares <= flat[:, num_classes, None]).sum(1)  # C where none of this class has fallen: stays random
    known = target < num_classes
    found[known] = found[known].scatter(1, target[known, None], 0.8)
    return found


def _counted(logits: Tensor, y: Tensor, before: Tensor | None) -> Tensor:
    """(C, C): for each class, how many images ended as which other one, those of earlier restarts included."""
    num_classes, said = logits.shape[1], logits.argmax(1)
    wrong = said != y
    pairs = torch.bincount(y[wrong] * num_classes + said[wrong], minlength=num_classes**2)
    table = pairs.reshape(num_classes, num_classes).to(logits.dtype)
    return table if before is None else before + table


def _worth_it(gap: Tensor, keep: float) -> Tensor:
    """Places of the images that stand but are nearest to falling: their share `keep`, in their order."""
    standing = torch.nonzero(gap < 0)[:, 0]
    nearest = gap[standing].topk(math.ceil(keep * len(standing))).indices
    return standing[nearest.sort().values]
