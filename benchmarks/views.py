"""Views: images a second of our index gather, against torchvision's transforms on PIL images, one thread.

    python -m benchmarks.views [--short]

Both sides cut the same view of the same image of real CIFAR-10 (random pixels where there is none): crop, flip and
conversion to float. The bits of all 162 views are compared first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as theirs

from absld_search.core import datasets, views
from absld_search.workloads import Augmentation
from benchmarks import timing
from benchmarks.options import CIFAR10, options

HOW = Augmentation(padding=4, flip=True)
BATCH = 128


def pixels(count: int) -> np.ndarray:
    """(count, 3, 32, 32) uint8."""
    if CIFAR10.is_dir():
        return np.asarray(datasets.open_images("cifar10", str(CIFAR10)).images[:count])
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def with_torchvision(images: list[Image.Image], rows: list[int], view: list[int]) -> torch.Tensor:
    """The same choices by the functions that RandomCrop, RandomHorizontalFlip and ToTensor call."""
    seen = []
    for row, number in zip(rows, view, strict=True):
        corner = (number % 81 + 40) % 81
        cropped = theirs.crop(theirs.pad(images[row], [4, 4, 4, 4]), corner // 9, corner % 9, 32, 32)
        seen.append(theirs.to_tensor(theirs.hflip(cropped) if number >= 81 else cropped))
    return torch.stack(seen)


def again(times: int, run: Callable[[], object]) -> None:
    """As a training does: the memory of a batch is free before the next."""
    for _ in range(times):
        run()


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    return options(__doc__, words=words)


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    images = pixels(5000)
    ours, theirs_ = torch.from_numpy(images.copy()), [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    every = torch.arange(162)
    same = with_torchvision(theirs_, [7] * 162, every.tolist())
    assert torch.equal(views.gather(ours, torch.full((162,), 7), every, HOW), same), "other bits than torchvision's"
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(images), (BATCH,), generator=generator)
    view = torch.randint(162, (BATCH,), generator=generator)
    times = 5 if told.short else 20
    found = timing.in_turns(
        {
            "torchvision, PIL": lambda: again(times, lambda: with_torchvision(theirs_, rows.tolist(), view.tolist())),
            "views.gather": lambda: again(times, lambda: views.gather(ours, rows, view, HOW)),
        },
        rounds=5 if told.short else 15,
    )
    print(timing.table(f"{times} batches of {BATCH} views", found))
    micro = {ratio.variant: ratio.seconds / times / BATCH * 1e6 for ratio in found}
    print("  ".join(f"{name}: {value:.2f} us an image" for name, value in micro.items()))
    timing.write(told.out, "views", {"ratios": timing.plain(found), "microseconds_an_image": micro, "goal": 9})


if __name__ == "__main__":
    main()
