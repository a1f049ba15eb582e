"""A small network for small images."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with batch norm, for images of 8x8 or so: (B, ch, H, W) -> logits (B, C).

    Small enough for an adversarial training in seconds on one core; batch norm because the papers' networks
    have it, and much of what goes wrong in attacks goes wrong there.
    """

    def __init__(self, width: int, num_classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(channels, width, stride=1),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 2 * width, stride=2),
        )
        self.linear = nn.Linear(2 * width * (size // 4) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).flatten(1))


def _block(inside: int, outside: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outside), nn.ReLU()]
