"""What every attack is: one signature, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

Radius = Tensor | float  # in pixel units of [0, 1]; one number, or one for each image (B,)
SPREAD = 2_654_435_761  # odd, and near 2^32 / golden ratio: keeps the seeds of one image's draws apart


class Draws(Protocol):
    """Uniform numbers in [0, 1) for an attack. Never torch's default generator, which belongs to training."""

    def per_image(self, rows: Tensor, shape: Sequence[int], number: int = 0) -> Tensor:
        """(len(rows), *shape), on the CPU, for the images at `rows` (n,) of the batch; `number` counts an attack's
        restarts and targets."""

    def shared(self, *shape: int) -> Tensor:
        """(*shape), on the CPU, one draw for all images."""


class Attack(Protocol):
    """x (B, ch, H, W) in [0, 1], y (B,), a radius -> x_adv (B, ch, H, W), detached, inside ball and [0, 1].

    Where an attack fails, what it returns is any point of the ball. It needs the model in eval mode and leaves no
    gradient on its parameters.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, eps: Radius, draws: Draws) -> Tensor: ...


class ImageDraws:
    """Numbers that are functions of the image alone: outcomes are paired between models and batches.

    `ids` (B,): which image each row of the batch is. What all images share is a function of the seed.
    """

    def __init__(self, ids: Tensor, seed: int) -> None:
        self.ids, self.seed = ids.tolist(), seed * 1_000_003
        self.common = torch.Generator().manual_seed(self.seed)

    def per_image(self, rows: Tensor, shape: Sequence[int], number: int = 0) -> Tensor:
        drawn = torch.empty(len(rows), *shape)
        for at, row in enumerate(rows.tolist()):
            generator = torch.Generator().manual_seed(self.seed + self.ids[row] + number * SPREAD)
            drawn[at] = torch.rand(tuple(shape), generator=generator)
        return drawn

    def shared(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.common)


class BatchDraws:
    """One stream for the whole batch, as AutoAttack seeds it anew for every batch and attack."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def per_image(self, rows: Tensor, shape: Sequence[int], number: int = 0) -> Tensor:
        return torch.rand((len(rows), *shape), generator=self.generator)

    def shared(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)


@contextmanager
def inputs_only(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter asks for a gradient, so that a backward pass computes the input's alone."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def radii(eps: Radius, x: Tensor) -> Tensor:
    """The radius of each image, (B, 1, ...), so that it broadcasts over `x` and can be indexed as `x` is."""
    values = torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(len(x))
    return values.reshape(-1, *[1] * (x.ndim - 1))


def box(x: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """(lowest, highest) pixel values inside both the ball and [0, 1]."""
    return (x - radius).clamp(0, 1), (x + radius).clamp(0, 1)


def uniform_start(x: Tensor, radius: Tensor, draws: Draws, number: int = 0) -> Tensor:
    """A point drawn evenly from the ball around each image, cut to [0, 1]."""
    drawn = draws.per_image(torch.arange(len(x)), x.shape[1:], number).to(x)
    return (x + (2 * drawn - 1) * radius).clamp(0, 1)


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(B,): whether the model says y."""
    found: Tensor = model(x).argmax(1) == y
    return found
