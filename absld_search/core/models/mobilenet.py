"""MobileNet-v2 for 32x32 images (Sandler et al., CVPR 2018, arXiv:1801.04381)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (  # expansion, width, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 1),  # stride 2 for ImageNet; small images keep their size here and in the stem
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """Inverted residuals with a 1280-wide head: (B, ch, H, W) -> logits (B, C).

    State-dict names of the RSLAD and ABSLD releases, and like theirs: ReLU rather than ReLU6, a projected shortcut
    wherever a block keeps the size but not the width, no normalisation inside.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.layers = nn.Sequential(*_blocks(32))
        self.conv2 = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel alone, narrow again."""

    def __init__(self, inside: int, outside: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * inside
        self.conv1 = nn.Conv2d(inside, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.shortcut, self.stride = nn.Sequential(), stride
        if stride == 1 and inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return out + self.shortcut(x) if self.stride == 1 else out


def _blocks(inside: int) -> list[nn.Module]:
    found: list[nn.Module] = []
    for expansion, width, blocks, stride in STAGES:
        for number in range(blocks):
            found.append(InvertedResidual(inside, width, expansion, stride if number == 0 else 1))
            inside = width
    return found
