"""Images on the device, split once and for all by a fixed seed; batches that a seed and an epoch determine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from absld_search.words import require_known

SPLIT_SEED = 20231205  # never changed: it decides which images are test images
DATASETS = ("digits",)


class Batch(NamedTuple):
    """What a method sees of the data."""

    x: Tensor  # (B, ch, H, W), float in [0, 1]: the augmented view
    y: Tensor  # (B,), int64
    index: Tensor  # type: ignore[assignment]  # (B,), image ids in the data set; hides tuple.index, which nobody uses
    view: Tensor  # (B,), which augmentation: a function of (image, epoch, stream)


@dataclass(frozen=True)
class Split:
    """Part of a data set: images (N, ch, H, W) in [0, 1], labels (N,), ids (N,) in the whole data set."""

    images: Tensor
    labels: Tensor
    ids: Tensor
    num_classes: int
    num_views: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, size: int, seed: int, epoch: int, class_probability: Callable[[], Tensor | None] = lambda: None
    ) -> Iterator[Batch]:
        """The epoch's shuffled batches, a function of (seed, epoch) alone.

        Where `class_probability` has something to say, (C,), it is asked before every batch, whose classes are
        drawn by it and whose images are drawn evenly within their class, with replacement.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        if class_probability() is not None:
            yield from self._drawn(size, generator, class_probability)
            return
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for rows in order.split(size):
            yield self.at(rows)

    def _drawn(
        self, size: int, generator: torch.Generator, class_probability: Callable[[], Tensor | None]
    ) -> Iterator[Batch]:
        """As many images as there are, drawn batch by batch; a class without images has no probability."""
        labels = self.labels.cpu()
        counts = torch.bincount(labels, minlength=self.num_classes).double()
        for first in range(0, len(self), size):
            asked = class_probability()
            assert asked is not None
            per_image = (asked.detach().cpu().double() / counts.clamp_min(1))[labels]
            taken = min(size, len(self) - first)
            rows = torch.multinomial(per_image, taken, replacement=True, generator=generator)
            yield self.at(rows.to(self.labels.device))

    def at(self, rows: Tensor) -> Batch:
        """Those rows as a batch, in their plain view."""
        labels = self.labels[rows]
        return Batch(self.images[rows], labels, self.ids[rows], torch.zeros_like(labels))


def load(dataset: str, fractions: Mapping[str, float], device: str) -> tuple[Split, Split]:
    """(train, val): all that search may see."""
    parts = _splits(dataset, tuple(sorted(fractions.items())), device)
    return parts["train"], parts["val"]


def load_monitor(dataset: str, fractions: Mapping[str, float], share: float, device: str) -> tuple[Split, Split]:
    """(train, monitor): train as `load` gives it, cut in two, each class by `share`, by a fixed seed."""
    train, _ = load(dataset, fractions, device)
    parts = stratified(train.labels.cpu().numpy(), {"train": 1 - share, "monitor": share}, SPLIT_SEED + 1)
    rest, monitor = (_part(train, parts[name]) for name in ("train", "monitor"))
    return rest, monitor


def _part(split: Split, rows: np.ndarray) -> Split:
    at = torch.as_tensor(rows, device=split.labels.device)
    return replace(split, images=split.images[at], labels=split.labels[at], ids=split.ids[at])


def load_test(dataset: str, fractions: Mapping[str, float], device: str) -> Split:
    """The test split. Only the confirm stage, and the measuring of a person's own checkpoint, may call this."""
    return _splits(dataset, tuple(sorted(fractions.items())), device)["test"]


@lru_cache(maxsize=4)
def _splits(dataset: str, fractions: tuple[tuple[str, float], ...], device: str) -> dict[str, Split]:
    images, labels = _read(dataset)
    rows = stratified(labels, dict(fractions), SPLIT_SEED)
    return {name: _split(images, labels, ids, device) for name, ids in rows.items()}


def _split(images: np.ndarray, labels: np.ndarray, ids: np.ndarray, device: str) -> Split:
    return Split(
        torch.as_tensor(images[ids], dtype=torch.float32, device=device),
        torch.as_tensor(labels[ids], dtype=torch.int64, device=device),
        torch.as_tensor(ids, dtype=torch.int64, device=device),
        num_classes=int(labels.max()) + 1,
    )


def _read(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, ch, H, W) in [0, 1] and labels (N,)."""
    require_known("dataset", dataset, DATASETS)
    from sklearn.datasets import load_digits  # a second of import that only the training itself should pay

    digits = load_digits()
    return digits.images[:, None] / 16.0, digits.target


def stratified(labels: np.ndarray, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Disjoint row ids (sorted) per part, each class cut in the same proportions: {name: (n,)}."""
    generator = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(np.cumsum(list(fractions.values()))[:-1] * len(rows)).astype(int)
        for name, piece in zip(fractions, np.split(rows, cuts), strict=True):
            parts[name].append(piece)
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in parts.items()}
