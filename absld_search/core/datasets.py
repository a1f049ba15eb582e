"""The image data sets by name: where they may lie under `--data-dir`, and what they must be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from absld_search.core import readers
from absld_search.core.files import cache_folder
from absld_search.core.image_cache import FORMAT, Facts, Images, opened
from absld_search.core.parquet import parquet
from absld_search.core.readers import Part, Source
from absld_search.words import UsageError, require_known

Finder = Callable[[Path], Source | None]
Fetcher = Callable[[Any, str], object]  # torchvision.datasets, the folder to fetch into
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


@dataclass(frozen=True)
class ImageSet:
    """What a data set is, whatever files it comes in."""

    title: str
    num_classes: int
    size: int
    label: str  # its column in Parquet
    layout: str = ""  # how it comes beside Parquet: the files' names, and whose they are
    find: Finder = lambda folder: None  # that layout in a folder
    classes: tuple[str, ...] = ()
    test: tuple[str, ...] = ("test",)  # how Parquet files of the official test part begin
    fetch: Fetcher | None = None  # where torchvision offers it


def _cifar10(folder: Path) -> Source | None:
    meta = ("batches.meta", "label_names")
    return readers.cifar(folder / "cifar-10-batches-py", BATCHES, ["test_batch"], "labels", meta)


def _cifar100(folder: Path) -> Source | None:
    meta = ("meta", "fine_label_names")
    return readers.cifar(folder / "cifar-100-python", ["train"], ["test"], "fine_labels", meta)


def _tiny(folder: Path) -> Source | None:
    return readers.image_folder(folder / "tiny-imagenet-200") or readers.image_folder(folder)


def _fetch_svhn(theirs: Any, folder: str) -> None:
    for part in ("train", "test"):
        theirs.SVHN(folder, split=part, download=True)


IMAGE_SETS: dict[str, ImageSet] = {
    "cifar10": ImageSet(
        "CIFAR-10", 10, 32, "label", "cifar-10-batches-py/ (the layout of torchvision)", _cifar10, CIFAR10,
        fetch=lambda theirs, folder: theirs.CIFAR10(folder, download=True),
    ),
    "cifar100": ImageSet(
        "CIFAR-100", 100, 32, "fine_label", "cifar-100-python/ (the layout of torchvision)", _cifar100,
        fetch=lambda theirs, folder: theirs.CIFAR100(folder, download=True),
    ),
    "svhn": ImageSet(
        "SVHN", 10, 32, "label", "train_32x32.mat and test_32x32.mat (the layout of torchvision)", readers.svhn,
        tuple("0123456789"), fetch=_fetch_svhn,
    ),
    "tiny-imagenet": ImageSet(
        "Tiny-ImageNet", 200, 64, "label", "tiny-imagenet-200/ (as its archive unpacks)", _tiny,
        test=("test", "valid", "val"),
    ),
}  # fmt: skip


def require(name: str, data_dir: str) -> Source:
    """The data set's files. Raises: UsageError saying exactly what to put where."""
    known = IMAGE_SETS[require_known("dataset", name, IMAGE_SETS)]
    folder = Path(data_dir)
    finders: tuple[Finder, ...] = (known.find, partial(parquet, label=known.label, test=known.test))
    for place in _places(folder, name):
        for find in finders:
            if (source := find(place)) is not None:
                return source
    raise UsageError(_missing(known, folder))


def _places(folder: Path, name: str) -> Iterator[Path]:
    """The folder itself first, then where a folder of several data sets or a downloaded copy keeps this one."""
    for place in (folder, folder / name):
        yield from (place, place / "plain_text", place / "data", place / "cropped_digits")


def _missing(known: ImageSet, folder: Path) -> str:
    parquet = f"train-*.parquet and {known.test[0]}-*.parquet with columns img and {known.label}"
    lacks = "there is no such folder" if not folder.is_dir() else f"no {known.title} there"
    files = f"{known.layout} or {parquet}" if known.layout else parquet
    download = " With --download it is fetched, where the network allows." if known.fetch else ""
    return f"--data-dir {folder.absolute()}: {lacks}. Put {files} into it, or name the folder that has them.{download}"


@lru_cache(maxsize=2)
def open_images(name: str, data_dir: str) -> Images:
    """The whole data set, decoded once for all processes, mapped into memory. Raises: UsageError."""
    source = require(name, data_dir)
    mark = hashlib.sha256(f"{FORMAT}{name}{source.layout}".encode())
    for file in source.files:
        facts = file.stat()
        mark.update(f"{file.resolve()}{facts.st_size}{facts.st_mtime_ns}".encode())
    folder = cache_folder() / "data" / f"{name}-{mark.hexdigest()[:12]}"
    return opened(folder, partial(_read, name, source))


def look(name: str, data_dir: str) -> Images:
    """The data set as `open_images` has it, but with one image at least of each part: nothing else is decoded, and
    nothing kept. Raises: UsageError for whatever can be told from that.
    """
    return _read(name, require(name, data_dir), whole=False)


def _read(name: str, source: Source, whole: bool = True) -> Images:
    known, train, test = IMAGE_SETS[name], source.train(whole), source.test(whole)
    for which, part in (("train", train), ("test", test)):
        _check(known, which, part)
    classes = known.classes or train.classes or tuple(str(label) for label in range(known.num_classes))
    if len(classes) != known.num_classes:
        raise UsageError(f"--data-dir: train names {len(classes)} classes, {known.title} has {known.num_classes}.")
    return Images(
        np.concatenate([train.images, test.images]),
        np.concatenate([train.labels, test.labels]),
        np.concatenate([train.exact, test.exact]),
        Facts(classes, source.layout, len(train.labels)),
    )


def _check(known: ImageSet, which: str, part: Part) -> None:
    """Files of another data set would train on nonsense."""
    if not len(part.labels):
        raise UsageError(f"--data-dir: the {which} part of {known.title} has no images.")
    shape, low, high = part.images.shape[1:], part.labels.min(), part.labels.max()
    if shape != (3, known.size, known.size):
        raise UsageError(
            f"--data-dir: {which} images are {shape}, those of {known.title} are (3, {known.size}, {known.size})."
        )
    if low < 0 or high >= known.num_classes:
        hint = " Do they count from 1?" if low >= 1 and high == known.num_classes else ""
        raise UsageError(
            f"--data-dir: {which} labels go from {low} to {high}, {known.title} has {known.num_classes} classes, 0 to "
            f"{known.num_classes - 1}.{hint}"
        )


def download(name: str, data_dir: str) -> None:
    """Fetch the data set into `data_dir` with torchvision. Raises: UsageError where that cannot be."""
    known = IMAGE_SETS[require_known("dataset", name, IMAGE_SETS)]
    if known.fetch is None:
        raise UsageError(f"--download: torchvision does not offer {known.title}; put it there by hand.")
    import torchvision.datasets as theirs  # only here: where it is broken, everything else still works

    try:
        known.fetch(theirs, data_dir)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"--download: {known.title} could not be fetched ({error}).") from None
