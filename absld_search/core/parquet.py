"""The column layout of the public copies of data sets: Parquet files -> uint8 images and labels.

What is wrong with a file is said with its name, the column and the row, before any image is decoded where that can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from absld_search.core.readers import Part, Source, decoded
from absld_search.words import UsageError

BATCH = 1000  # images in memory as files, beside the decoded ones


class _File(NamedTuple):
    """An open file whose columns are what they should be."""

    path: Path
    table: Any  # a pyarrow.parquet.ParquetFile; pyarrow is imported only where there is one
    image: str  # the column of the images

    def column(self, name: str) -> list[Any]:
        """All values of a column but the images'. Raises: UsageError."""
        with _intact(self.path):
            return list(self.table.read(columns=[name])[name].to_pylist())


def parquet(folder: Path, label: str, test: tuple[str, ...] = ("test",)) -> Source | None:
    """`train-*.parquet` and `test-*.parquet` with `img` or `image` {bytes, path} and a label; None where none are.

    A column `exact` marks originals; the schema's metadata may name the classes under `classes`, with commas.
    """
    train_files = sorted(folder.glob("train-*.parquet"))
    test_files = next((found for stem in test if (found := sorted(folder.glob(f"{stem}-*.parquet")))), [])
    if not (train_files and test_files):
        return None
    read = (partial(_read, files, label) for files in (train_files, test_files))
    return Source("Parquet", [*train_files, *test_files], *read)


def _read(files: list[Path], label: str, whole: bool) -> Part:
    opened = [_opened(path, label) for path in files]
    labels = np.array([value for file in opened for value in _labels(file, label)], dtype=np.int64)
    exact = np.array([value for file in opened for value in _exact(file)], dtype=bool)
    names = (opened[0].table.schema_arrow.metadata or {}).get(b"classes", b"").decode()
    images = (image for file in opened for image in _images(file))
    return decoded(images, labels, tuple(names.split(",")) if names else (), whole)._replace(exact=exact)


def _opened(path: Path, label: str) -> _File:
    import pyarrow.parquet as pq

    with _intact(path):
        table = pq.ParquetFile(path)
    schema = table.schema_arrow
    image = next((name for name in ("img", "image") if name in schema.names), None)
    if image is None or label not in schema.names:
        raise UsageError(f"--data-dir: {path} has columns {', '.join(schema.names)}; img and {label} are needed.")
    kind = schema.field(image).type
    if not _holds_files(kind):
        raise UsageError(
            f"--data-dir: {path}: column {image} is {kind}, it must be a struct with the binary field bytes."
        )
    return _File(path, table, image)


def _holds_files(kind: Any) -> bool:
    """Whether a column of this type is {bytes, ...}."""
    import pyarrow as pa

    inside = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return inside and kind.field("bytes").type in (pa.binary(), pa.large_binary())


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """What pyarrow says of a damaged file, said with its name. Raises: UsageError."""
    from pyarrow.lib import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        why = (str(error).splitlines() or ["empty"])[0].rstrip(".")
        raise UsageError(f"--data-dir: {path} is damaged or no Parquet file ({why}).") from None


def _labels(file: _File, label: str) -> list[int]:
    """Raises: UsageError naming the first row whose label is a word, a fraction or nothing."""
    values = file.column(label)
    for row, value in enumerate(values):
        if not isinstance(value, int | float) or value % 1 or abs(value) >= 2**63:  # nan and inf leave nan over
            found = "null" if value is None else f"{value!r:.40}"
            raise UsageError(
                f"--data-dir: {file.path}: row {row} of column {label} is {found}; a label is a whole number, 0 for "
                "the first class."
            )
    return values


def _exact(file: _File) -> list[bool]:
    named = "exact" in file.table.schema_arrow.names
    return file.column("exact") if named else [True] * file.table.metadata.num_rows


def _images(file: _File) -> Iterator[tuple[str, bytes]]:
    """Where each image lies, and its content. Raises: UsageError."""
    position = 0
    with _intact(file.path):
        for batch in file.table.iter_batches(BATCH, columns=[file.image]):
            for cell in batch.column(0).to_pylist():
                where = f"{file.path}: image {position}"
                if cell is None or cell["bytes"] is None:
                    raise UsageError(f"--data-dir: {where} is missing: column {file.image} has no bytes there.")
                yield where, cell["bytes"]
                position += 1
