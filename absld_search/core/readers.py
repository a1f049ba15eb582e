"""Data sets as they lie on disk: torchvision's layouts, Parquet, image folders -> uint8 images and labels.

Nothing here runs code that came with the data: the pickles of CIFAR are read with everything but NumPy arrays
refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator
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
    """A data set found on disk: what to read, and the files whose change means that it must be read again."""

    layout: str
    files: list[Path]
    train: Callable[[], Part]
    test: Callable[[], Part]


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

    return Source("torchvision", files, lambda: part(train), lambda: part(test))


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
    return Source("torchvision", [train, test], lambda: _mat(train), lambda: _mat(test))


def _mat(path: Path) -> Part:
    from scipy.io import loadmat  # half a second that only the first reading pays

    try:
        found = loadmat(path)
    except (ValueError, OSError, NotImplementedError, TypeError) as error:
        raise UsageError(f"--data-dir: {path} is damaged or no MATLAB file ({error}).") from None
    labels = found["y"].astype(np.int64).ravel() % 10  # the files write the digit 0 as 10
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
        lambda: _decoded(len(in_train), ((path.read_bytes(), label) for path, label in in_train), classes),
        lambda: _annotated(annotations, classes),
    )


def _annotated(annotations: Path, classes: tuple[str, ...]) -> Part:
    lines = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.strip()]
    unknown = sorted({wnid for _, wnid in lines} - set(classes))
    if unknown:
        raise UsageError(f"--data-dir: {annotations} names class {unknown[0]}, which train/ does not have.")
    number = {wnid: label for label, wnid in enumerate(classes)}
    images = annotations.parent / "images"
    return _decoded(len(lines), (((images / name).read_bytes(), number[wnid]) for name, wnid in lines), classes)


def parquet(folder: Path, label: str, test: tuple[str, ...] = ("test",)) -> Source | None:
    """The column layout of the public copies: `img` or `image` {bytes, path}, and a label column."""
    train_files = sorted(folder.glob("train-*.parquet"))
    test_files = next((found for stem in test if (found := sorted(folder.glob(f"{stem}-*.parquet")))), [])
    if not (train_files and test_files):
        return None
    return Source(
        "Parquet",
        [*train_files, *test_files],
        lambda: _from_parquet(train_files, label),
        lambda: _from_parquet(test_files, label),
    )


def _from_parquet(files: list[Path], label: str) -> Part:
    import pyarrow.parquet as pq

    opened = [pq.ParquetFile(path) for path in files]
    schema = opened[0].schema_arrow
    image = next((name for name in ("img", "image") if name in schema.names), None)
    if image is None or label not in schema.names:
        raise UsageError(f"--data-dir: {files[0]} has columns {', '.join(schema.names)}; img and {label} are needed.")
    columns = [image, label] + (["exact"] if "exact" in schema.names else [])
    names = (schema.metadata or {}).get(b"classes", b"").decode()
    rows = (row for file in opened for batch in file.iter_batches(1000, columns=columns) for row in batch.to_pylist())
    total = sum(file.metadata.num_rows for file in opened)
    exact = np.ones(total, dtype=bool)

    def images() -> Iterator[tuple[bytes, int]]:
        for position, row in enumerate(rows):
            exact[position] = row.get("exact", True)
            yield row[image]["bytes"], row[label]

    return _decoded(total, images(), tuple(names.split(",")) if names else ())._replace(exact=exact)


def _decoded(total: int, encoded: Iterable[tuple[bytes, int]], classes: tuple[str, ...]) -> Part:
    from PIL import Image, UnidentifiedImageError

    images, labels = np.empty(0, np.uint8), np.empty(total, np.int64)
    for position, (content, label) in enumerate(encoded):
        try:
            found = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
        except (UnidentifiedImageError, OSError) as error:
            raise UsageError(f"--data-dir: image {position} cannot be decoded ({error}).") from None
        images = images if position else np.empty((total, *found.shape), np.uint8)
        images[position], labels[position] = found, label
    return _part(images, labels, classes=classes)


def _part(images: np.ndarray, labels: Any, classes: tuple[str, ...] = ()) -> Part:
    labels = np.asarray(labels, dtype=np.int64)
    return Part(np.ascontiguousarray(images, dtype=np.uint8), labels, np.ones(len(labels), dtype=bool), classes)
