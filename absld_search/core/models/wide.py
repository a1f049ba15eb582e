"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016, arXiv:1605.07146), in the two forms that robust
checkpoints come in: TRADES' with ReLU, and Gowal et al.'s (arXiv:2010.03593) with Swish."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the training images; part of the network in Gowal's release, and so of its checkpoints' meaning.
NORMALISATION = {
    10: ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class WideResNet(nn.Module):
    """WRN-depth-factor as in the TRADES, RSLAD and ABSLD releases: (B, ch, H, W) in [0, 1] -> logits (B, C).

    `sub_block1` is never used. The releases define it, so their checkpoints contain it; LTD's CIFAR-10 checkpoints
    do not. No normalisation inside.
    """

    def __init__(self, depth: int, factor: int, num_classes: int, channels: int) -> None:
        super().__init__()
        blocks, widths = (depth - 4) // 6, (16, 16 * factor, 32 * factor, 64 * factor)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.block1 = _Group(blocks, widths[0], widths[1], stride=1)
        self.sub_block1 = _Group(blocks, widths[0], widths[1], stride=1)
        self.block2 = _Group(blocks, widths[1], widths[2], stride=2)
        self.block3 = _Group(blocks, widths[2], widths[3], stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        self.nChannels = widths[3]  # as the releases call it
        self._start()

    def _start(self) -> None:
        """The release's initial weights: normal, with a variance of 2 over the fan out."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class _Group(nn.Module):
    """A stage, under the name `layer`."""

    def __init__(self, blocks: int, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        rest = [_Block(outside, outside, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(_Block(inside, outside, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.convShortcut = None
        if inside != outside:
            self.convShortcut = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + (x if self.convShortcut is None else self.convShortcut(activated))


class SwishWideResNet(nn.Module):
    """WRN-depth-factor with Swish as Gowal et al. released it: (B, 3, H, W) in [0, 1] -> logits (B, C).

    Normalises inside, with the means of the data set that has this number of classes (CIFAR-10's where that says
    nothing); strided convolutions are padded on the right and at the bottom only, as JAX does.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int, factor: int, num_classes: int, channels: int) -> None:
        super().__init__()
        blocks, widths = (depth - 4) // 6, (16, 16 * factor, 32 * factor, 64 * factor)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in NORMALISATION.get(num_classes, NORMALISATION[10]))
        self.register_buffer("mean", mean, persistent=False)  # the released files have neither
        self.register_buffer("std", std, persistent=False)
        self.init_conv = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        groups = [_SwishGroup(blocks, widths[i], widths[i + 1], stride=1 if i == 0 else 2) for i in range(3)]
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(widths[3])
        self.logits = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.init_conv((x - self.mean) / self.std))
        return self.logits(F.silu(self.batchnorm(x)).mean((2, 3)))


class _SwishGroup(nn.Module):
    """A stage, under the name `block`."""

    def __init__(self, blocks: int, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        rest = [_SwishBlock(outside, outside, 1) for _ in range(blocks - 1)]
        self.block = nn.Sequential(_SwishBlock(inside, outside, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class _SwishBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(inside)
        self.conv_0 = nn.Conv2d(inside, outside, 3, stride=stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(outside)
        self.conv_1 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.shortcut = None
        self.edges = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        if inside != outside:
            self.shortcut = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.silu(self.batchnorm_0(x))
        out = self.conv_1(F.silu(self.batchnorm_1(self.conv_0(F.pad(activated, self.edges)))))
        return out + (x if self.shortcut is None else self.shortcut(activated))
