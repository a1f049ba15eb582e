"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absld_search.core.attacks.base import Draws, Radius, box, radii
from absld_search.core.losses import cross_entropy


@dataclass(frozen=True)
class Fgsm:
    """One step of the whole radius along the sign of the cross-entropy's gradient, from the image itself.

    Goodfellow, Shlens and Szegedy, ICLR 2015, arXiv:1412.6572.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor:
        radius = radii(eps, x)
        x = x.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            loss = cross_entropy(model(x), y).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        x = x.detach()
        return (x + radius * gradient.sign()).clamp(*box(x, radius))
