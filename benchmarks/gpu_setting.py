"""What the parts of benchmarks/gpu.py share: how much is run and where, images, TensorFloat-32, counted operations."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from absld_search.core.data import Split
from absld_search.workloads import Augmentation
from benchmarks import timing
from benchmarks.train_step import OurStep, Table

LIMIT = 8.5 * 60  # seconds after which a part begins nothing new
PEAK = 989e12  # operations a second of an H200 in dense bf16


@dataclass(frozen=True)
class Size:
    """How much is run."""

    students: tuple[str, ...]
    teacher: str
    batch: int
    rounds: int
    images: int
    epochs: int
    attacked: int
    chunk: int  # of the attacked images
    repeated: int  # steps of a variant in each round
    packed: tuple[int, ...]
    small: str


FULL = Size(("resnet-18", "mobilenet-v2"), "wrn-34-10", 128, 9, 50_000, 20, 2_000, 250, 10, (1, 2, 4, 8), "resnet-8-16")
TOY = Size(("resnet-8-4",), "resnet-8-4", 4, 2, 16, 2, 4, 2, 1, (1, 2), "resnet-8-4")


@dataclass(frozen=True)
class Setting:
    """Where, how much, on what."""

    size: Size
    device: str
    data: Path | None
    began: float
    toy: bool
    out: Path
    peak: float

    def late(self, needed: float = 0.0) -> bool:
        """Whether what takes so many seconds more would end after the limit."""
        return time.monotonic() - self.began + needed > LIMIT

    def keep(self, part: str, found: dict[str, Any]) -> None:
        """What there is so far: a part that is cut short leaves it."""
        timing.write(self.out, f"gpu-{part}", {"toy": self.toy, "peak": self.peak, part: found})

    def clock(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TensorFloat-32 in convolutions and products inside, or strict single precision."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def within(allowed: bool, run: Callable[[], object]) -> Callable[[], object]:
    """`run` with TensorFloat-32 as said."""

    def wrapped() -> object:
        with tf32(allowed):
            return run()

    return wrapped


def images_of(setting: Setting, number: int) -> Split:
    """`number` images, ids counted from 0, in the crops and flips of CIFAR-10."""
    if setting.data is None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (number, 3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.arange(number) % 10
    else:
        pixels, labels = parquet(setting.data, number)
    rows = torch.arange(len(labels), device=setting.device)
    how = Augmentation(padding=4, flip=True)
    return Split(pixels.to(setting.device), labels.to(setting.device), rows, 10, how, rows)


def parquet(path: Path, number: int) -> tuple[Tensor, Tensor]:
    """The first images (n, 3, 32, 32), uint8, and labels (n,) of a file with columns img and label."""
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(path).slice(0, number).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor([row["label"] for row in rows])


def bank(setting: Setting, split: Split) -> Table:
    """Random logits for every image: what a warm bank costs to read, and nothing to make."""
    logits = torch.randn(len(split), 10, generator=torch.Generator().manual_seed(1))
    return Table((3 * logits).to(setting.device))


class Operations(TorchDispatchMode):
    """Counts operations by the formulas of torch.utils.flop_counter, two for each multiply-add.

    Its own mode does not bear `autograd.grad` to a leaf, and its formula for the weights' gradient counts a convolution
    in g groups g times too often: each gradient costs what the forward pass did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution_backward.default:
            gradient, x, weight, transposed, wanted = (args[at] for at in (0, 1, 2, 7, 10))
            one = conv_flop_count(list(x.shape), list(weight.shape), list(gradient.shape), transposed)
            self.count += one * (wanted[0] + wanted[1])
        elif func.overloadpacket in flop_registry:
            self.count += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def flops(ours: OurStep) -> float:
    """Operations of one step with a warm bank."""
    with Operations() as counted:
        ours.step()
    return counted.count


def again(times: int, run: Callable[[], object]) -> Callable[[], None]:
    """`run` so many times in a row."""

    def several() -> None:
        for _ in range(times):
            run()

    return several
