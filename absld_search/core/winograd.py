"""Wide 3x3 convolutions of frozen networks in fewer multiplications: Winograd's minimal filtering F(2x2, 3x3).

Lavin and Gray, CVPR 2016, arXiv:1509.09308. Tiles of 4x4 pixels, filters and outputs are put into a basis where a
convolution is a product of matrices: 16 multiplications for four outputs instead of 36. Only rounding changes. oneDNN,
which computes convolutions on a CPU, does not offer it any more for x86, so it is written here, of matrix products. The
changes of basis are paid per channel and the products per pair of channels, so it pays where layers are wide.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDE = 320  # channels on either side from which on it is faster, on a Xeon with AVX-512; even at 256
FILTER_BASIS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
AS_IT_IS, TURNED = (0, 1, 2, 3), (3, 1, 2, 0)  # in the basis a filter is turned by 180 degrees by an exchange of rows


def fits(module: nn.Module) -> bool:
    """Whether `module` is a convolution that this is for."""
    if type(module) is not nn.Conv2d or min(module.in_channels, module.out_channels) < WIDE:
        return False
    if module.weight.dtype not in (torch.float32, torch.float64):
        return False
    shape = (module.kernel_size, module.stride, module.padding, module.dilation, module.groups, module.padding_mode)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


class WideConv(nn.Module):
    """What `conv` computes, (B, C, H, W) -> (B, K, H, W), with a gradient of its input alone.

    `prepare` is to be called whenever the weights have moved.
    """

    filters: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        basis = torch.tensor(FILTER_BASIS, dtype=conv.weight.dtype)
        self.basis = torch.kron(basis, basis)  # (16, 9)

    @torch.no_grad()
    def prepare(self) -> None:
        """Put the filters into the basis: (16, K, C)."""
        outside, inside = self.weight.shape[:2]
        rows = self.weight.permute(0, 2, 3, 1).reshape(outside, 9, inside)
        self.filters = (self.basis @ rows).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2:
            return F.conv2d(x, self.weight, self.bias, padding=1)
        found: Tensor = _Filtering.apply(x, self.filters.transpose(1, 2), self.bias, AS_IT_IS)
        return found


class _Filtering(torch.autograd.Function):
    """The gradient of a convolution is the convolution with turned filters, their channels exchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, bias: Tensor | None, order: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(filters)
        ctx.other = TURNED if order == AS_IT_IS else AS_IT_IS
        return filtered(x, filters, bias, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (filters,) = ctx.saved_tensors
        return _Filtering.apply(gradient, filters.transpose(1, 2), None, ctx.other), None, None, None


def filtered(x: Tensor, filters: Tensor, bias: Tensor | None, order: tuple[int, ...]) -> Tensor:
    """`x` (B, C, H, W), H and W even, by `filters` (16, C, K), rows in `order`: (B, K, H, W), in memory as `x` is."""
    (size, _, height, width), outside = x.shape, filters.shape[2]
    tiles = _tiles(F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)), order)
    products = torch.bmm(tiles.flatten(2, 4).flatten(0, 1), filters).view(*tiles.shape[:5], outside)
    if bias is not None:
        products[1, 1].add_(bias)  # which goes to all four outputs of a tile alike
    shape = (size, outside, height, width)
    last = x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(shape, dtype=x.dtype, memory_format=memory_format)
    places = out.permute(0, 2, 3, 1).unflatten(2, (width // 2, 2)).unflatten(1, (height // 2, 2))
    for row, part in enumerate(_sums([products[i] for i in order])):
        for column, values in enumerate(_sums([part[i] for i in order])):
            places[:, :, row, :, column].copy_(values)
    return out


def _tiles(padded: Tensor, order: tuple[int, ...]) -> Tensor:
    """Overlapping 4x4 tiles of `padded` (B, H + 2, W + 2, C) in the basis: (4, 4, B, H / 2, W / 2, C)."""
    size, height, width, channels = padded.shape
    rows = padded.new_empty(4, size, height // 2 - 1, width, channels)
    _differences([padded[:, i : height - 2 + i : 2] for i in range(4)], [rows[i] for i in order])
    tiles = padded.new_empty(4, 4, size, height // 2 - 1, width // 2 - 1, channels)
    columns = [rows[:, :, :, i : width - 2 + i : 2] for i in range(4)]
    _differences(columns, [tiles[:, i] for i in order])
    return tiles


def _differences(of: list[Tensor], into: list[Tensor]) -> None:
    torch.sub(of[0], of[2], out=into[0])
    torch.add(of[1], of[2], out=into[1])
    torch.sub(of[2], of[1], out=into[2])
    torch.sub(of[1], of[3], out=into[3])


def _sums(of: list[Tensor]) -> tuple[Tensor, Tensor]:
    return (of[1] + of[2]).add_(of[0]), (of[1] - of[2]).sub_(of[3])
