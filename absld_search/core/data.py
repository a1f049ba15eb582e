"""Images on the device, split once and for all by a fixed seed; batches that a seed and an epoch determine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from absld_search.core import datasets, views
from absld_search.core.datasets import IMAGE_SETS, open_images
from absld_search.core.image_cache import Images
from absld_search.words import UsageError, require_known
from absld_search.workloads import PLAIN, Augmentation

SPLIT_SEED = 20231205  # never changed: it decides which images are test images
DATASETS = ("digits", *IMAGE_SETS)
UNUSED = "unused"  # what fractions below one leave over
ROUNDING = 1e-9  # by which fractions that come to one may miss it


class Batch(NamedTuple):
    """What a method sees of the data."""

    x: Tensor  # (B, ch, H, W), float in [0, 1]: the augmented view
    y: Tensor  # (B,), int64
    index: Tensor  # type: ignore[assignment]  # (B,), image ids in the data set; hides tuple.index, which nobody uses
    view: Tensor  # (B,), which augmentation: a function of (image, epoch, stream)


@dataclass(frozen=True)
class Split:
    """Part of a data set: labels (N,), ids (N,) in the whole data set, and where the pixels are.

    `pixels` are (N, ch, H, W) in [0, 1], or uint8 of the whole data set, shared by all splits and processes; then
    image i lies at `rows[i]`.
    """

    pixels: Tensor
    labels: Tensor
    ids: Tensor
    num_classes: int
    how: Augmentation = PLAIN
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_views(self) -> int:
        """How many views an image has in `batches`; 0 where they cannot be numbered."""
        return views.count(self.how)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(ch, H, W)."""
        return tuple(self.pixels.shape[1:])

    @property
    def images(self) -> Tensor:
        """All images of the split, plain, (N, ch, H, W) in [0, 1]; for uint8 pixels this makes a copy."""
        return self.pixels if self.rows is None else views.as_floats(self.pixels[self.rows])

    def batches(
        self, size: int, seed: int, epoch: int, class_probability: Callable[[], Tensor | None] = lambda: None
    ) -> Iterator[Batch]:
        """The epoch's shuffled batches, a function of (seed, epoch) alone.

        Where `class_probability` has something to say, (C,), it is asked before every batch, whose classes are
        drawn by it and whose images are drawn evenly within their class, with replacement.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        if class_probability() is not None:
            drawn = self._drawn(size, generator, class_probability)
            yield from (self.seen(rows, epoch, stream=seed) for rows in drawn)
            return
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for rows in order.split(size):
            yield self.seen(rows, epoch, stream=seed)

    def _drawn(
        self, size: int, generator: torch.Generator, class_probability: Callable[[], Tensor | None]
    ) -> Iterator[Tensor]:
        """Rows, as many as there are, drawn batch by batch; a class without images has no probability."""
        labels = self.labels.cpu()
        counts = torch.bincount(labels, minlength=self.num_classes).double()
        for first in range(0, len(self), size):
            asked = class_probability()
            assert asked is not None
            per_image = (asked.detach().cpu().double() / counts.clamp_min(1))[labels]
            taken = min(size, len(self) - first)
            rows = torch.multinomial(per_image, taken, replacement=True, generator=generator)
            yield rows.to(self.labels.device)

    def at(self, rows: Tensor) -> Batch:
        """Those rows as a batch, in their plain view."""
        rows = rows.to(self.labels.device)
        labels = self.labels[rows]
        return Batch(self._pixels(rows), labels, self.ids[rows], torch.zeros_like(labels))

    def seen(self, rows: Tensor, epoch: int, stream: int) -> Batch:
        """Those rows as a batch, in the view that each image shows in this epoch of this stream."""
        if self.rows is None or self.how == PLAIN:
            return self.at(rows)
        ids, where = self.ids[rows], self.rows[rows]
        view = views.draw(ids, epoch, stream, self.how)
        x = views.gather(self.pixels, where, view, self.how)
        if self.how.cutout:
            x = views.cut_out(x, ids, epoch, stream, self.how.cutout)
        return Batch(x, self.labels[rows], ids, view)

    def views_of(self, epoch: int, stream: int) -> Tensor:
        """The view (N,) that every image shows in this epoch of this stream."""
        if self.rows is None or self.how == PLAIN:
            return torch.zeros_like(self.ids)
        return views.draw(self.ids, epoch, stream, self.how)

    def first(self, n: int) -> Split:
        """Its first `n` images, which are of mixed classes."""
        return self.part(torch.arange(min(n, len(self))))

    def part(self, at: Tensor) -> Split:
        """The images at those places (n,)."""
        at = at.to(self.labels.device)
        where = {"pixels": self.pixels[at]} if self.rows is None else {"rows": self.rows[at]}
        return replace(self, labels=self.labels[at], ids=self.ids[at], **where)  # type: ignore[arg-type]

    def counts(self) -> list[int]:
        """Images of each class, (C,)."""
        return torch.bincount(self.labels, minlength=self.num_classes).tolist()

    def _pixels(self, rows: Tensor) -> Tensor:
        return self.pixels[rows] if self.rows is None else views.as_floats(self.pixels[self.rows[rows]])


def load(
    dataset: str, fractions: Mapping[str, float], device: str, data_dir: str = "", how: Augmentation = PLAIN
) -> tuple[Split, Split]:
    """(train, val): all that search may see; `train` in the views of `how`. Raises: UsageError."""
    parts = _splits(dataset, tuple(sorted(fractions.items())), device, data_dir)
    return replace(parts["train"], how=how), parts["val"]


def load_monitor(
    dataset: str,
    fractions: Mapping[str, float],
    share: float,
    device: str,
    data_dir: str = "",
    how: Augmentation = PLAIN,
) -> tuple[Split, Split]:
    """(train, monitor): train as `load` gives it, cut in two, each class by `share`, by a fixed seed."""
    train, _ = load(dataset, fractions, device, data_dir, how)
    parts = stratified(train.labels.cpu().numpy(), {"train": 1 - share, "monitor": share}, SPLIT_SEED + 1)
    rest, monitor = (train.part(torch.as_tensor(parts[name])) for name in ("train", "monitor"))
    return rest, replace(monitor, how=PLAIN)


def load_test(dataset: str, fractions: Mapping[str, float], device: str, data_dir: str = "") -> Split:
    """The test split. Only the confirm stage, and the measuring of a person's own checkpoint, may call this."""
    return _splits(dataset, tuple(sorted(fractions.items())), device, data_dir)["test"]


def class_names(dataset: str, data_dir: str = "") -> tuple[str, ...]:
    """The classes in the order of their labels."""
    return tuple("0123456789") if dataset == "digits" else open_images(dataset, data_dir).facts.classes


def shape(dataset: str) -> tuple[int, int, int]:
    """(classes, channels, pixels a side), without reading any data. Raises: UsageError with the nearest name."""
    require_known("dataset", dataset, DATASETS)
    return (10, 1, 8) if dataset == "digits" else (IMAGE_SETS[dataset].num_classes, 3, IMAGE_SETS[dataset].size)


def identity(dataset: str, data_dir: str = "") -> str:
    """What tells these images and labels from all others."""
    return dataset if dataset == "digits" else open_images(dataset, data_dir).facts.sha256


def facts(dataset: str, fractions: Mapping[str, float], data_dir: str = "") -> dict[str, object]:
    """What a study records of its data: identity, and the number of images of each class in each split."""
    parts = _splits(dataset, tuple(sorted(fractions.items())), "cpu", data_dir)
    found: dict[str, object] = {"dataset": dataset, "counts": {name: part.counts() for name, part in parts.items()}}
    if dataset == "digits":
        return found
    images = open_images(dataset, data_dir)
    left_out = int((~images.exact[images.facts.train :]).sum())
    return found | {"sha256": images.facts.sha256, "layout": images.facts.layout, "left_out_of_test": left_out}


def look(dataset: str, fractions: Mapping[str, float], data_dir: str = "") -> None:
    """What `load` would refuse, told from the labels and the first images: in a second, and nothing is kept.

    Raises: UsageError.
    """
    _check_asked(dataset, fractions)
    if dataset == "digits":
        return
    found = datasets.look(dataset, data_dir)
    names, rows = found.facts.classes, _rows(found, dict(sorted(fractions.items())))  # the order of `_splits`
    counts = {name: np.bincount(found.labels[ids], minlength=len(names)).tolist() for name, ids in rows.items()}
    _check_counts(dataset, fractions, counts, names)


def counted(dataset: str, fractions: Mapping[str, float], data_dir: str = "") -> list[str]:
    """A line for each split: how many images, and how many of each class."""
    counts = facts(dataset, fractions, data_dir)["counts"]
    assert isinstance(counts, dict)
    return [f"{name:<8}{sum(found)} images, {_range(found)} a class" for name, found in counts.items()]


def _range(counts: list[int]) -> str:
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


@lru_cache(maxsize=4)
def _splits(
    dataset: str, fractions: tuple[tuple[str, float], ...], device: str, data_dir: str = ""
) -> dict[str, Split]:
    shares = dict(fractions)
    _check_asked(dataset, shares)
    parts = _digits(shares, device) if dataset == "digits" else _cut(dataset, shares, device, data_dir)
    counts = {name: part.counts() for name, part in parts.items()}
    _check_counts(dataset, shares, counts, class_names(dataset, data_dir))
    return parts


def _check_asked(dataset: str, shares: Mapping[str, float]) -> None:
    """The data set is known, and what its splits get of one pool of images is there to be given. Raises: UsageError."""
    require_known("dataset", dataset, DATASETS)
    pools = [("train", "val", "test")] if dataset == "digits" else [("train", "val"), ("test",)]
    for pool in pools:
        given = [shares.get(name, 0.0) for name in pool]
        if min(given) < 0 or sum(given) > 1 + ROUNDING:
            numbers = " + ".join(f"{share:g}" for share in given)
            raise UsageError(
                f"split of {dataset}: {' + '.join(pool)} = {numbers}; they are shares of "
                f"{'all images' if dataset == 'digits' else f'the official {pool[0]} part'}, from 0 to 1 together."
            )


def _check_counts(
    dataset: str, shares: Mapping[str, float], counts: Mapping[str, list[int]], names: tuple[str, ...]
) -> None:
    """Raises: UsageError naming the first split that has no image of a class."""
    for name, found in counts.items():
        for label, number in enumerate(found):
            if not number:
                raise UsageError(
                    f"--data-dir: split {name!r} of {dataset} has no image of class {label} ({names[label]}). It gets "
                    f"{shares[name]:g} of each class's images, so there must be more of them."
                )


def _digits(fractions: Mapping[str, float], device: str) -> dict[str, Split]:
    """Scikit-learn's digits, all in one pool: every part is cut from it."""
    from sklearn.datasets import load_digits  # a second of import that only the training itself should pay

    digits = load_digits()
    images, labels = digits.images[:, None] / 16.0, digits.target
    return {
        name: Split(
            torch.as_tensor(images[ids], dtype=torch.float32, device=device),
            torch.as_tensor(labels[ids], dtype=torch.int64, device=device),
            torch.as_tensor(ids, dtype=torch.int64, device=device),
            num_classes=int(labels.max()) + 1,
        )
        for name, ids in stratified(labels, fractions, SPLIT_SEED).items()
    }


def _cut(dataset: str, fractions: Mapping[str, float], device: str, data_dir: str) -> dict[str, Split]:
    """Train, val and monitor from the official training part; test from the official test part, originals only."""
    data = open_images(dataset, data_dir)
    pixels = _resident(dataset, data_dir, device)
    return {name: _part(data, pixels, ids) for name, ids in _rows(data, fractions).items()}


def _rows(data: Images, fractions: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The images of each part, as ids in the whole data set: {name: (n,)}."""
    train, labels = data.facts.train, data.labels
    inside = {name: share for name, share in fractions.items() if name != "test"}
    rows = _shares(labels[:train], inside)
    test = _shares(labels[train:], {"test": fractions["test"]})["test"] + train
    return rows | {"test": test[data.exact[test]]}


def _shares(labels: np.ndarray, fractions: Mapping[str, float]) -> dict[str, np.ndarray]:
    """`stratified`, for fractions that may leave something over."""
    over = 1 - sum(fractions.values())
    rows = stratified(labels, {**fractions, **({UNUSED: over} if over > ROUNDING else {})}, SPLIT_SEED)
    rows.pop(UNUSED, None)
    return rows


def _part(data: Images, pixels: Tensor, ids: np.ndarray) -> Split:
    where = torch.as_tensor(ids, dtype=torch.int64, device=pixels.device)
    labels = torch.as_tensor(data.labels[ids], dtype=torch.int64, device=pixels.device)
    return Split(pixels, labels, where, len(data.facts.classes), rows=where)


@lru_cache(maxsize=2)
def _resident(dataset: str, data_dir: str, device: str) -> Tensor:
    """All pixels as uint8: on the CPU the mapped file itself, on a GPU one copy a process."""
    return torch.from_numpy(open_images(dataset, data_dir).images).to(device)


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
