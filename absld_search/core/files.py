"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """What is made once and kept, teachers and decoded images: `ABSLD_CACHE_DIR`, or the platform's place."""
    return Path(os.environ.get("ABSLD_CACHE_DIR") or user_cache_dir("absld_search"))


@dataclass(frozen=True)
class Folders:
    """Where a person keeps data sets and teachers. Changes no number, and so is no part of any identity."""

    data: str = ""
    teachers: str = ""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, sync what was written there and move it to `path`.

    A kill at any moment leaves the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(content: bytes) -> str:
    """The hexadecimal sha256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """The same of a file's content, which may be larger than memory."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
