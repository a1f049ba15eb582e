"""Augmented views: which one an image shows is a function of (image, epoch, stream), and it is cut on the device.

A view is a number. 0 is the plain image; the rest are the crops of the padded image, first as they are, then
flipped: 81 crops x 2 = 162 for CIFAR's padding of 4. The bits are those of torchvision's RandomCrop,
RandomHorizontalFlip and ToTensor for the same choice.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from absld_search.workloads import Augmentation

VIEW, CUTOUT = 1, 2  # salts: what is drawn for one purpose says nothing about another


def count(how: Augmentation) -> int:
    """How many views an image has; 0 where they cannot be numbered, so that no logit bank can hold them."""
    return 0 if how.cutout else _crops(how) * (2 if how.flip else 1)


def draw(ids: Tensor, epoch: int, stream: int, how: Augmentation) -> Tensor:
    """Each image's view (B,) in this epoch, every one equally likely."""
    return _drawn(ids, epoch, stream, VIEW) % (_crops(how) * (2 if how.flip else 1))


def gather(pixels: Tensor, rows: Tensor, view: Tensor, how: Augmentation) -> Tensor:
    """The views (B, ch, H, W) of `rows` of uint8 pixels (N, ch, H, W), as floats in [0, 1]."""
    channels, height, width = pixels.shape[1:]
    seen = _sources(how, height, width, pixels.device).index_select(0, view)  # (B, H * W); four times as fast as [view]
    flat = F.pad(pixels.index_select(0, rows).flatten(2), (0, 1))  # one black pixel more, which the padding shows
    found = flat.gather(2, seen[:, None].expand(-1, channels, -1))
    return as_floats(found.view(-1, channels, height, width))


def cut_out(x: Tensor, ids: Tensor, epoch: int, stream: int, size: int) -> Tensor:
    """`x` (B, ch, H, W) with a square of `size` pixels blackened around a random pixel (arXiv:1708.04552)."""
    height, width = x.shape[-2:]
    place = _drawn(ids, epoch, stream, CUTOUT) % (height * width)
    ys = torch.arange(height, device=x.device) - (place // width)[:, None] + size // 2
    xs = torch.arange(width, device=x.device) - (place % width)[:, None] + size // 2
    hidden = _inside(ys, size)[:, :, None] & _inside(xs, size)[:, None, :]
    return x.masked_fill(hidden[:, None], 0.0)


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 -> float in [0, 1]."""
    return pixels.float().div(255)


def _crops(how: Augmentation) -> int:
    return (2 * how.padding + 1) ** 2


@lru_cache(maxsize=8)
def _sources(how: Augmentation, height: int, width: int, device: torch.device) -> Tensor:
    """Where in the image each pixel of each view comes from, (views, H * W); H * W where it is black padding."""
    span, crops = 2 * how.padding + 1, _crops(how)
    view = torch.arange(crops * (2 if how.flip else 1), device=device)
    corner = (view + crops // 2) % crops  # so that view 0 is the crop in the middle
    ys = (corner // span - how.padding)[:, None] + torch.arange(height, device=device)
    across = torch.arange(width, device=device).expand(len(view), -1)
    xs = (corner % span - how.padding)[:, None] + torch.where(view[:, None] >= crops, across.flip(1), across)
    inside = _inside(ys, height)[:, :, None] & _inside(xs, width)[:, None, :]
    places = _mirrored(ys, height)[:, :, None] * width + _mirrored(xs, width)[:, None, :]
    return (places if how.fill == "reflect" else torch.where(inside, places, height * width)).flatten(1)


def _mirrored(coordinates: Tensor, size: int) -> Tensor:
    """Coordinates outside an image of `size` pixels, reflected at its edges without repeating them."""
    return (size - 1) - ((size - 1) - coordinates.abs()).abs()


def _inside(coordinates: Tensor, size: int) -> Tensor:
    return (coordinates >= 0) & (coordinates < size)


def _drawn(ids: Tensor, epoch: int, stream: int, salt: int) -> Tensor:
    """A non-negative random number (B,) for each image: no state, no order, equal on every device."""
    # Filled on the device: a number that is copied there would make the host wait, for every batch.
    key = torch.full((1,), stream * 16 + salt, dtype=torch.int64, device=ids.device)
    return _mixed(_mixed(_mixed(key) + epoch) + ids) & 0x7FFFFFFFFFFFFFFF


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64 (Steele et al., OOPSLA 2014) on int64, whose products wrap as unsigned ones do."""
    x = x + -0x61C8864680B583EB
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
