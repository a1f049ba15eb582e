"""Decoded images on disk: written once, whole or not at all, checked by hash, mapped by every training of a node.

A mapped file is in memory once however many processes read it, and a start costs no decoding.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

FORMAT = 1  # raised when what is written here changes


@dataclass(frozen=True)
class Facts:
    """What a cache holds; `sha256` is the identity of the data: images, labels and where test begins."""

    classes: tuple[str, ...]
    layout: str
    train: int  # images of the official training part: they come first
    sha256: str = ""


@dataclass(frozen=True)
class Images:
    """A whole data set: images (N, ch, H, W) uint8, labels (N,), `exact` (N,) false for stand-ins."""

    images: np.ndarray
    labels: np.ndarray
    exact: np.ndarray
    facts: Facts


def opened(folder: Path, make: Callable[[], Images]) -> Images:
    """The data set in `folder`, mapped; made there first where it is missing or damaged. One process makes it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    found = _mapped(folder)
    if found is None:
        with _making(folder):
            found = _mapped(folder)  # another process may have made it meanwhile
            if found is None:
                _write(folder, make())
                found = _mapped(folder)
    assert found is not None, f"{folder} cannot be read back"
    return found


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """The lock of whoever makes the folder. Where that fails the lock's file goes too: whoever waits for it fails in
    the same way, one after the other or not."""
    lock = FileLock(f"{folder}.lock")
    with lock:
        try:
            yield
        except Exception:
            Path(lock.lock_file).unlink(missing_ok=True)
            raise


def _mapped(folder: Path) -> Images | None:
    """None where the files are not those whose hash was noted."""
    try:
        noted = json.loads((folder / "facts.json").read_text())
        # Copy-on-write: nobody's slip can reach the file or another process, and torch needs writable memory.
        images = np.load(folder / "images.npy", mmap_mode="c")
        labels, exact = np.load(folder / "labels.npy"), np.load(folder / "exact.npy")
        facts = Facts(tuple(noted.pop("classes")), **noted)
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    whole = Images(images, labels, exact, facts)
    return whole if _sha256(whole) == facts.sha256 else None


def _write(folder: Path, made: Images) -> None:
    """A folder that appears with one rename."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name in ("images", "labels", "exact"):
            with open(temporary / f"{name}.npy", "wb") as handle:
                np.save(handle, getattr(made, name))
                handle.flush()
                os.fsync(handle.fileno())
        facts = asdict(made.facts) | {"sha256": _sha256(made)}
        (temporary / "facts.json").write_text(json.dumps(facts, indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or we would not be here
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(data: Images) -> str:
    digest = hashlib.sha256(f"{data.images.shape}{data.facts.train}".encode())
    for array in (data.images, data.labels, data.exact):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
