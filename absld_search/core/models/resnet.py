"""Residual networks for small images (He et al., CVPR 2016, arXiv:1512.03385) and their pre-activation form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ResNet(nn.Module):
    """A 3x3 stem, stages of basic blocks that halve the image, global average pooling: (B, ch, H, W) -> (B, C).

    `blocks` and `widths` are per stage. (2, 2, 2, 2) with 64 to 512 is the ResNet-18 of the RSLAD and ABSLD
    releases, with their state-dict names; inputs in [0, 1] and no normalisation inside, as there.
    """

    def __init__(self, blocks: Sequence[int], widths: Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        for number, stage in enumerate(_stages(BasicBlock, blocks, widths), start=1):
            setattr(self, f"layer{number}", stage)
        self.stages = len(blocks)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.linear(x.mean((2, 3)))


class PreActResNet(nn.Module):
    """ResNet with batch norm before each convolution (He et al., ECCV 2016, arXiv:1603.05027): -> logits (B, C).

    State-dict names are those of the CFA and robust-overfitting releases, with the last `bn`. Those normalise the
    input outside the network; here inputs are in [0, 1] and are not normalised.
    """

    def __init__(self, blocks: Sequence[int], widths: Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages(PreActBlock, blocks, widths)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            projection = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class PreActBlock(nn.Module):
    """The same with batch norm and ReLU before the convolutions; a projection sees the activated input."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        across = self.shortcut(activated) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(activated)))) + across


def _stages(block: type[nn.Module], blocks: Sequence[int], widths: Sequence[int]) -> list[nn.Sequential]:
    """One stage per width; all but the first begin by halving the image."""
    found, inside = [], widths[0]
    for stage, (number, width) in enumerate(zip(blocks, widths, strict=True)):
        first = block(inside, width, 1 if stage == 0 else 2)
        found.append(nn.Sequential(first, *[block(width, width, 1) for _ in range(number - 1)]))
        inside = width
    return found
