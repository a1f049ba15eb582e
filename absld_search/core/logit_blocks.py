"""Blocks of teacher logits on disk: one Arrow file for each epoch of a stream, there whole or not at all.

One file an epoch and not one file a stream: a file that grows can be read half written, a file that appears with a
rename cannot, and whoever needs an epoch maps that epoch alone. Until a block is whole its shares lie beside it, so
that several trainings can fill it together and a kill loses one share.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from absld_search.core.files import replacing

RESERVE, RESERVED_SHARE = 1 << 30, 0.05  # of the disk, kept free: bytes, or this share where that is more


@dataclass(frozen=True)
class Block:
    """Logits (N, C) float32 of N views, and `keys` (N,) int64 that say which: image id * number of views + view."""

    keys: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a block lies and what it must hold: whatever else is found there is not trusted."""

    path: Path
    keys: np.ndarray
    num_classes: int

    def read(self) -> Block | None:
        """The block, mapped from the file without a copy; None where it is missing, damaged or another one."""
        found = read(self.path)
        whole = found is not None and found.logits.shape == (len(self.keys), self.num_classes)
        return found if found is not None and whole and np.array_equal(found.keys, self.keys) else None

    def share(self, number: int, rows: slice) -> Place:
        """Some rows of it, while it is being filled."""
        return Place(self.path.with_suffix(f".share-{number:03d}"), self.keys[rows], self.num_classes)

    def lock(self) -> FileLock:
        """Held by whoever fills it; the system takes it from a process that dies. All epochs share a few files."""
        return FileLock(self.path.with_name(f"{self.path.suffix}.lock"))


Compute = Callable[[slice], np.ndarray]  # rows -> their logits (n, C)


def bytes_of(images: int, num_classes: int) -> int:
    """The size of a block."""
    return images * (4 * num_classes + 8)


def room_for(folder: Path, size: int) -> bool:
    """Whether `size` more bytes leave the disk enough to breathe."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(folder)
    return disk.free - size > max(RESERVE, RESERVED_SHARE * disk.total)


def filled(place: Place, size: int, compute: Compute) -> Block:
    """The block of `place`, computed where it is missing: in shares of `size` rows, each by one process.

    Raises: OSError where the disk is full.
    """
    shares = [slice(first, min(first + size, len(place.keys))) for first in range(0, len(place.keys), size)]
    for wait in (0, -1):  # first what nobody is at, then wait for the others
        for number, rows in enumerate(shares):
            found = place.read()
            if found is not None:
                return found
            _fill(place, place.share(number, rows), rows, compute, wait)
    return _joined(place, [place.share(number, rows) for number, rows in enumerate(shares)], shares, compute)


def _fill(place: Place, share: Place, rows: slice, compute: Compute, wait: float) -> None:
    if share.read() is not None:
        return
    with suppress(Timeout), share.lock().acquire(timeout=wait):
        if share.read() is None and place.read() is None:  # another process may have made either meanwhile
            write(share.path, Block(share.keys, compute(rows)))


def _joined(place: Place, shares: list[Place], rows: list[slice], compute: Compute) -> Block:
    """One process makes one file of the shares; a share that was damaged meanwhile is computed once more."""
    with place.lock():
        found = place.read()
        if found is None:
            parts = [share.read() for share in shares]
            pieces = [part.logits if part else compute(at) for part, at in zip(parts, rows, strict=True)]
            write(place.path, Block(place.keys, np.concatenate(pieces)))
            found = place.read()
    assert found is not None, f"{place.path} cannot be read back"
    for left in place.path.parent.glob(f"*{place.path.stem}.share-*"):  # and half-written ones of the killed
        left.unlink(missing_ok=True)
    return found


def write(path: Path, block: Block) -> None:
    """Publish a block: a temporary file, synced, then renamed."""
    import pyarrow as pa  # where blocks are kept, and nowhere else: a bank is optional

    num_classes = block.logits.shape[1]
    flat = pa.array(np.ascontiguousarray(block.logits, dtype=np.float32).ravel())
    columns = [pa.array(block.keys), pa.FixedSizeListArray.from_arrays(flat, num_classes)]
    batch = pa.record_batch(columns, names=["key", "logits"]).replace_schema_metadata({"sha256": _sha256(block)})
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)


def read(path: Path) -> Block | None:
    """The block in a file, mapped; None where there is none whose content has the hash that was noted."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        keys = batch.column("key").to_numpy(zero_copy_only=True)
        logits = batch.column("logits").flatten().to_numpy(zero_copy_only=True).reshape(len(keys), -1)
        found = Block(keys, logits)
        return found if (batch.schema.metadata or {}).get(b"sha256") == _sha256(found).encode() else None
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def _sha256(block: Block) -> str:
    digest = hashlib.sha256(f"{block.logits.shape}".encode())
    digest.update(np.ascontiguousarray(block.keys).data)
    digest.update(np.ascontiguousarray(block.logits, dtype=np.float32).data)
    return digest.hexdigest()
