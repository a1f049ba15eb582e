"""Targeted PGD at what the model itself confuses each class with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absld_search.core.attacks.base import Draws, Radius, radii, right
from absld_search.core.attacks.pgd import Pgd, ascend


@dataclass(frozen=True)
class ConfusedPgd:
    """PGD towards each of a class's likeliest mistakes in turn; an image that falls is left out of the next turn.

    `targets` (C, T): for each class the wrong classes to try, the most confused first, as `most_confused` finds them.
    What is ascended is the target's logit minus the right one.
    """

    targets: Tensor
    num_steps: int = 20
    step_size: Radius | None = None  # None: a quarter of the radius

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        found, left = x.detach().clone(), torch.arange(len(x), device=x.device)
        targets = self.targets.to(y.device)
        for turn in range(targets.shape[1]):
            found[left] = self._towards(targets[y[left], turn], model, x, y, eps, draws, left, turn)
            left = left[right(model, found[left], y[left])]
            if not len(left):
                break
        return found

    def _towards(
        self, target: Tensor, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws, rows: Tensor, turn: int
    ) -> Tensor:
        whole, x, y, radius = x, x[rows], y[rows], radii(eps, x)[rows]
        noise = (2 * draws.per_image(rows, x.shape[1:], turn).to(x) - 1) * radius
        step = radius / 4 if self.step_size is None else radii(self.step_size, whole)[rows]

        def gap(logits: Tensor, at: Tensor) -> Tensor:
            return (logits.gather(1, target[at, None]) - logits.gather(1, y[at, None]))[:, 0]

        return ascend(model, x, y, radius, step, self.num_steps, noise, gap)


def beliefs(model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
    """What the model says under a short attack, PGD-5 on the cross-entropy, last iterate: softmax, (B, C)."""
    x_adv = Pgd(num_steps=5, drop=False)(model, x, y, eps, draws)
    with torch.no_grad():
        found: Tensor = model(x_adv).softmax(1)
    return found


def most_confused(believed: Tensor, y: Tensor, count: int = 3) -> Tensor:
    """(B, C), (B,) -> (C, min(count, C - 1)): for each class the wrong classes most believed of it, most first."""
    num_classes = believed.shape[1]
    table = torch.zeros(num_classes, num_classes, device=y.device).index_add_(0, y, believed.float())
    wrong = table.masked_fill(torch.eye(num_classes, dtype=torch.bool, device=y.device), float("-inf"))
    return wrong.topk(min(count, num_classes - 1), dim=1).indices
