"""Students and teachers by name.

cnn-WIDTH            a small CNN for 8x8 images
resnet-18, -34       four stages of 64 to 512 channels
resnet-DEPTH-WIDTH   three stages of WIDTH to 4 WIDTH channels, DEPTH = 6n + 2: resnet-8-16, resnet-56-16
preact-resnet-18     ResNet-18 with batch norm before the convolutions
mobilenet-v2         strides for small images, head of 1280
wrn-DEPTH-FACTOR     wide ResNet, DEPTH = 6n + 4, as TRADES released it: wrn-28-10, wrn-34-10, wrn-34-20
wrn-DEPTH-FACTOR-swish   as Gowal et al. released it: wrn-70-16-swish

All take images of any size that the strides divide, since they average over what is left of the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from absld_search.core.models.mobilenet import MobileNetV2
from absld_search.core.models.resnet import PreActResNet, ResNet
from absld_search.core.models.small import SmallCNN
from absld_search.core.models.wide import SwishWideResNet, WideResNet
from absld_search.words import UsageError, unknown

WIDTHS = (64, 128, 256, 512)
SHOWN = (  # families in the form of their names, and members whose names people mistype
    "cnn-WIDTH", "cnn-8", "resnet-18", "resnet-34", "resnet-DEPTH-WIDTH", "resnet-8-16", "preact-resnet-18",
    "mobilenet-v2", "wrn-DEPTH-FACTOR", "wrn-28-10", "wrn-34-10", "wrn-34-20", "wrn-DEPTH-FACTOR-swish",
    "wrn-70-16-swish",
)  # fmt: skip
Maker = Callable[[list[int], int, int, int], nn.Module]  # numbers in the name, classes, channels, size
MAKERS: dict[str, Maker] = {
    r"cnn-([1-9]\d{0,2})": lambda n, classes, channels, size: SmallCNN(n[0], classes, channels, size),
    r"resnet-18": lambda n, classes, channels, size: ResNet((2, 2, 2, 2), WIDTHS, classes, channels),
    r"resnet-34": lambda n, classes, channels, size: ResNet((3, 4, 6, 3), WIDTHS, classes, channels),
    r"resnet-(\d+)-(\d+)": lambda n, classes, channels, size: ResNet(
        [_blocks("resnet", n[0], 2)] * 3, (n[1], 2 * n[1], 4 * n[1]), classes, channels
    ),
    r"preact-resnet-18": lambda n, classes, channels, size: PreActResNet((2, 2, 2, 2), WIDTHS, classes, channels),
    r"mobilenet-v2": lambda n, classes, channels, size: MobileNetV2(classes, channels),
    r"wrn-(\d+)-(\d+)": lambda n, classes, channels, size: WideResNet(n[0], n[1], classes, channels),
    r"wrn-(\d+)-(\d+)-swish": lambda n, classes, channels, size: SwishWideResNet(n[0], n[1], classes, channels),
}


def check_name(name: str) -> None:
    """Raises: UsageError when no model goes by this name."""
    numbers, _ = _found(name)
    if name.startswith("wrn"):
        _blocks("wrn", numbers[0], 4)
    elif len(numbers) == 2:
        _blocks("resnet", numbers[0], 2)
    if numbers and min(numbers) < 1:
        raise unknown("model", name, SHOWN)


def build(name: str, num_classes: int, channels: int, seed: int, size: int | None = None) -> nn.Module:
    """The model `name` for images of `size` pixels a side, its weights a function of `seed` alone.

    Without a size: 8 for `cnn-*`, 32 for the others. Raises: UsageError.
    """
    check_name(name)
    numbers, make = _found(name)
    size = size or (8 if name.startswith("cnn") else 32)
    if size % 8:
        raise UsageError(f"model {name}: images must have a multiple of 8 pixels a side, not {size}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(numbers, num_classes, channels, size)


def has_depthwise(name: str) -> bool:
    """Whether the model convolves channels one by one, which CPUs have no fast bfloat16 for."""
    return name.startswith("mobilenet")


def classifier(model: nn.Module) -> str:
    """The name of the weight (C, features) that makes the logits."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return f"{linear[-1]}.weight" if linear else ""


def fitted(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The model without its unused part where a checkpoint comes without it, so that loading can be strict."""
    if isinstance(model, WideResNet) and not any(name.startswith("sub_block1.") for name in state):
        del model.sub_block1
    return model


def _found(name: str) -> tuple[list[int], Maker]:
    for pattern, make in MAKERS.items():
        if match := re.fullmatch(pattern, name):
            return [int(number) for number in match.groups()], make
    raise unknown("model", name, SHOWN)


def _blocks(kind: str, depth: int, rest: int) -> int:
    if depth < 6 + rest or (depth - rest) % 6:
        raise UsageError(f"model {kind}-{depth}: the depth must be 6n + {rest} with n at least 1.")
    return (depth - rest) // 6
