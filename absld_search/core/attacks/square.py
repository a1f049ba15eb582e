"""Square: random search that sees logits and no gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absld_search.core.attacks.base import Draws, Radius, box, radii, right
from absld_search.core.losses import margin

# (from this query on, the share of the image's pixels that the square covers is the first one's divided by this)
SCHEDULE = ((11, 2), (51, 4), (201, 8), (501, 16), (1001, 32), (2001, 64), (4001, 128), (6001, 256), (8001, 512))


@dataclass(frozen=True)
class Square:
    """Square attack (Andriushchenko et al., ECCV 2020, arXiv:1912.00049) on the margin, `num_queries` queries an image.

    Starts from vertical stripes on the ball's surface; each query shifts one square of all images, at one place, by
    twice the radius up or down in each channel, and is kept where it helps. As in the released code a square's place is
    drawn one short, so that small squares never reach the last row and column.

    Differs from the released code: a query that leaves an image as it was is not put to the model, which changes no
    verdict.
    """

    num_queries: int = 5000
    share: float = 0.8  # of the pixels, at first

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        x, found = x.detach(), x.detach().clone()
        left = torch.nonzero(right(model, x, y))[:, 0]
        if len(left):
            found[left] = self._search(model, x[left], y[left], radii(eps, x)[left], draws, left)
        return found

    @torch.no_grad()
    def _search(self, model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, draws: Draws, rows: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        stripes = _signs(draws.per_image(rows, (channels, 1, width))).to(x)
        found = (x + radius * stripes).clamp(0, 1)
        loss = margin(model(found), y)
        active = torch.nonzero(loss < 0)[:, 0]
        low, high = (bound[active] for bound in box(x, radius))
        best, radius, y, loss = found[active], radius[active], y[active], loss[active]
        for query in range(self.num_queries):
            if not len(active):
                break
            side = min(max(round(math.sqrt(self._share(query) * height * width)), 1), height, width)
            best, loss = _query(model, best, y, loss, low, high, radius, side, draws)
            standing = loss < 0
            if not standing.all():
                found[active[~standing]] = best[~standing]
                active, y, loss, best = active[standing], y[standing], loss[standing], best[standing]
                low, high, radius = low[standing], high[standing], radius[standing]
        found[active] = best
        return found

    def _share(self, query: int) -> float:
        divisors = [divisor for begins, divisor in SCHEDULE if query >= begins]
        return self.share / (divisors[-1] if divisors else 1)


def _query(
    model: nn.Module, best: Tensor, y: Tensor, loss: Tensor, low: Tensor, high: Tensor, radius: Tensor, side: int,
    draws: Draws,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(points, margins) after one query: the square's version where its margin is larger, the old one elsewhere."""
    channels, height, width = best.shape[1:]
    top, left = int((height - side) * draws.shared(1)), int((width - side) * draws.shared(1))
    shift = 2.0 * radius * _signs(draws.shared(channels, 1, 1)).to(best)
    where = (..., slice(top, top + side), slice(left, left + side))
    tried = best.clone()
    tried[where] = (best[where] + shift).clamp(low[where], high[where])
    changed = torch.nonzero((tried[where] != best[where]).flatten(1).any(1))[:, 0]
    if not len(changed):
        return best, loss
    asked = margin(model(tried[changed]), y[changed])
    helps = (asked > loss[changed]) | (asked >= 0)
    at = changed[helps]
    best, loss = best.clone(), loss.clone()
    best[at], loss[at] = tried[at], asked[helps]
    return best, loss


def _signs(drawn: Tensor) -> Tensor:
    """Numbers in [0, 1) -> -1 or 1 (0 at exactly a half)."""
    return torch.sign(2 * drawn - 1)
