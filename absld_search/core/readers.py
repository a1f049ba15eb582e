"""Data sets as they lie on disk: torchvision's layouts, image folders -> uint8 images and labels.

Nothing here runs code that came with the data: the pickles of CIFAR are read with everything but NumPy arrays
refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from absld_search.words import UsageError


class Part(NamedTuple):
    """The images (N, ch, H, W) uint8 and labels (N,) of a train or test part; `exact` (N,) marks originals."""

    images: np.ndarray
    labels: np.ndarray
    exact: np.ndarray
    classes: tuple[str, ...] = ()  # where the files name them


class Source(NamedTuple):
    """A data set found on disk: what to read, and the files whose change means that it must be read again.

    A part is read whole, or, where False is given, with all labels and with the first image at least: in no time.
    """

    layout: str
    files: list[Path]
    train: Callable[[bool], Part]
    test: Callable[[bool], Part]


class _OnlyArrays(pickle.Unpickler):
    """CIFAR's batches are pickles of arrays, lists and strings; whatever else one asks for may run code."""

    ALLOWED = {("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy"), ("encode", "_codecs")}

    def find_class(self, module: str, name: str) -> Any:
        if (name, module.rsplit(".", 1)[-1]) in self.ALLOWED and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise UsageError(f"--data-dir: a data file asks for {module}.{name}, which no CIFAR batch does; not read.")


def cifar(folder: Path, train: list[str], test: list[str], label: str, meta: tuple[str, str]) -> Source | None:
    """CIFAR's Python version: batches of (n, 3072) uint8 in `folder`; None where it is not there."""
    files = [folder / name for name in (*train, *test)]
    if not all(file.is_file() for file in files):
        return None
    names = tuple(_unpickled(folder / meta[0]).get(meta[1], ())) if (folder / meta[0]).is_file() else ()

    def part(batches: list[str]) -> Part:
        read = [_unpickled(folder / name) for name in batches]
        images = np.concatenate([batch["data"] for batch in read]).reshape(-1, 3, 32, 32)
        return _part(images, np.concatenate([batch[label] for batch in read]), classes=names)

    return Source("torchvision", files, lambda whole: part(train), lambda whole: part(test))  # half a second as it is


def _unpickled(path: Path) -> dict[str, Any]:
    with open(path, "rb") as handle:
        try:
            found = _OnlyArrays(handle, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(f"--data-dir: {path} is damaged or no CIFAR batch ({error}).") from None
    return dict(found)


def svhn(folder: Path) -> Source | None:
    """SVHN's cropped digits, format 2: `train_32x32.mat` and `test_32x32.mat`."""
    train, test = folder / "train_32x32.mat", folder / "test_32x32.mat"
    if not (train.is_file() and test.is_file()):
        return None
    return Source("torchvision", [train, test], partial(_mat, train), partial(_mat, test))


def _mat(path: Path, whole: bool) -> Part:
    from scipy.io import loadmat, whosmat  # half a second that only the first reading pays

    try:
        shape = {name: shape for name, shape, _ in whosmat(path)}["X"]
        found = {"X": np.zeros((*shape[:3], 1))} | loadmat(path, variable_names=None if whole else ["y"])
        labels = found["y"].astype(np.int64).ravel() % 10  # the files write the digit 0 as 10
    except (ValueError, OSError, NotImplementedError, TypeError, KeyError) as error:
        raise UsageError(f"--data-dir: {path} is damaged or no MATLAB file ({error}).") from None
    return _part(found["X"].transpose(3, 2, 0, 1), labels)


def image_folder(folder: Path) -> Source | None:
    """Tiny-ImageNet: `train/<wnid>/images/*`, and `val/` with its annotations, which serves as test."""
    annotations, train = folder / "val" / "val_annotations.txt", folder / "train"
    if not (annotations.is_file() and train.is_dir()):
        return None
    classes = tuple(sorted(place.name for place in train.iterdir() if place.is_dir()))
    in_train = [(path, i) for i, name in enumerate(classes) for path in sorted((train / name / "images").iterdir())]
    # A folder's time changes with its list of files; asking each of 110,000 files would take seconds at every start.
    watched = [annotations, *[train / name / "images" for name in classes]]
    return Source(
        "image folder",
        watched,
        lambda whole: _listed(in_train, classes, whole),
        lambda whole: _annotated(annotations, classes, whole),
    )


def _listed(files: list[tuple[Path, int]], classes: tuple[str, ...], whole: bool) -> Part:
    """Image files with their labels as a part."""
    labels = np.array([label for _, label in files], dtype=np.int64)
    return decoded(_contents(path for path, _ in files), labels, classes, whole)


def _contents(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise UsageError(f"--data-dir: {path} cannot be read ({error.strerror}).") from None


def _annotated(annotations: Path, classes: tuple[str, ...], whole: bool) -> Part:
    lines = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.strip()]
    unknown = sorted({wnid for _, wnid in lines} - set(classes))
    if unknown:
        raise UsageError(f"--data-dir: {annotations} names class {unknown[0]}, which train/ does not have.")
    number = {wnid: label for label, wnid in enumerate(classes)}
    images = annotations.parent / "images"
    return _listed([(images / name, number[wnid]) for name, wnid in lines], classes, whole)


def decoded(
    encoded: Iterable[tuple[str, bytes]], labels: np.ndarray, classes: tuple[str, ...] = (), whole: bool = True
) -> Part:
    """The part whose images are these files: for each where it lies, in a person's words, and its content.

    Not `whole`: the first image alone. Raises: UsageError naming the image that is none, or of another size.
    """
    images = np.empty(0, np.uint8)
    for position, (where, content) in enumerate(islice(encoded, None if whole else 1)):
        found = _image(where, content)
        if not position:
            images = np.empty((len(labels) if whole else 1, *found.shape), np.uint8)
        if found.shape != images.shape[1:]:
            raise UsageError(f"--data-dir: {where} is {found.shape}, the first {images.shape[1:]}.")
        images[position] = found
    return _part(images, labels, classes=classes)


def _image(where: str, content: bytes) -> np.ndarray:
    """(3, H, W) uint8."""
    from PIL import Image, UnidentifiedImageError

    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError:  # its text names the buffer in memory
        why = "in no format that Pillow knows"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = str(error)
    raise UsageError(f"--data-dir: {where} cannot be decoded ({why}).")


def _part(images: np.ndarray, labels: Any, classes: tuple[str, ...] = ()) -> Part:
    labels = np.asarray(labels, dtype=np.int64)
    return Part(np.ascontiguousarray(images, dtype=np.uint8), labels, np.ones(len(labels), dtype=bool), classes)
