"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
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


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that a kill at any moment leaves the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


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
