"""Small image data sets on disk, in every layout that is read: written by the tests, or cut from real files."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("ABSLD_DATA_DIR") or ROOT.parent / "shared" / "data")
needs_cifar10 = pytest.mark.skipif(
    not (REAL / "cifar10").is_dir(), reason="no real CIFAR-10: set ABSLD_DATA_DIR to a folder with cifar10/"
)
needs_cifar100 = pytest.mark.skipif(
    not (REAL / "cifar100-subset").is_dir(), reason="no real CIFAR-100: set ABSLD_DATA_DIR"
)


def random_images(n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """(n, 3, size, size) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def labels_of(n: int, num_classes: int = 10) -> np.ndarray:
    """Every class in turn."""
    return np.arange(n) % num_classes


def png(image: np.ndarray) -> bytes:
    """One image (ch, H, W) as a lossless file."""
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, format="PNG")
    return stream.getvalue()


def write_cifar10(folder: Path, images: np.ndarray, labels: np.ndarray, test: int) -> Path:
    """torchvision's layout: all but the last `test` images in five batches."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    train = len(images) - test
    pieces = [*np.array_split(np.arange(train), 5), np.arange(train, len(images))]
    for name, rows in zip([*[f"data_batch_{n}" for n in range(1, 6)], "test_batch"], pieces, strict=True):
        batch = {"data": images[rows].reshape(len(rows), -1), "labels": labels[rows].tolist(), "batch_label": name}
        (place / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


def write_cifar100(folder: Path, images: np.ndarray, labels: np.ndarray, test: int) -> Path:
    """torchvision's layout of CIFAR-100."""
    place = folder / "cifar-100-python"
    place.mkdir(parents=True)
    for name, rows in (("train", slice(0, len(images) - test)), ("test", slice(len(images) - test, None))):
        flat = images[rows].reshape(len(images[rows]), -1)
        batch = {"data": flat, "fine_labels": labels[rows].tolist(), "coarse_labels": [0] * len(flat)}
        (place / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"name{label}" for label in range(100)]
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    return folder


def write_parquet(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    test: int,
    label: str = "label",
    exact: np.ndarray | None = None,
) -> Path:
    """The public column layout, the train part in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    train = len(images) - test
    parts = {"train-00000-of-00002": np.arange(train // 2), "train-00001-of-00002": np.arange(train // 2, train)}
    parts["test-00000-of-00001"] = np.arange(train, len(images))
    for name, rows in parts.items():
        columns = {"img": [{"bytes": png(images[row]), "path": None} for row in rows], label: labels[rows].tolist()}
        if exact is not None:
            columns["exact"] = exact[rows].tolist()
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def write_svhn(folder: Path, images: np.ndarray, labels: np.ndarray, test: int) -> Path:
    """SVHN's MATLAB files, in which the digit 0 is 10."""
    from scipy.io import savemat

    folder.mkdir(parents=True)
    train = len(images) - test
    for name, rows in (("train", slice(0, train)), ("test", slice(train, None))):
        y = np.where(labels[rows] == 0, 10, labels[rows])[:, None].astype(np.uint8)
        savemat(folder / f"{name}_32x32.mat", {"X": images[rows].transpose(2, 3, 1, 0), "y": y})
    return folder


def write_tiny(folder: Path, num_classes: int = 200, per_class: int = 2) -> Path:
    """Tiny-ImageNet's folders, with one annotated image a class."""
    place = folder / "tiny-imagenet-200"
    images = random_images(num_classes * (per_class + 1), size=64)
    (place / "val" / "images").mkdir(parents=True)
    lines = []
    for label in range(num_classes):
        wnid = f"n{label:08d}"
        (place / "train" / wnid / "images").mkdir(parents=True)
        for number in range(per_class):
            content = png(images[label * per_class + number])
            (place / "train" / wnid / "images" / f"{wnid}_{number}.JPEG").write_bytes(content)
        (place / "val" / "images" / f"val_{label}.JPEG").write_bytes(png(images[num_classes * per_class + label]))
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t63\t63")
    (place / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return folder


def real_cifar10(n_train: int, n_test: int) -> tuple[np.ndarray, np.ndarray]:
    """The first real images of each part, decoded here on their own."""
    images, labels = [], []
    for name, n in (("train-00000-of-00004", n_train), ("test-00000-of-00001", n_test)):
        rows = pq.read_table(REAL / "cifar10" / f"{name}.parquet").slice(0, n).to_pylist()
        images += [np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))).transpose(2, 0, 1) for row in rows]
        labels += [row["label"] for row in rows]
    return np.stack(images), np.array(labels)
