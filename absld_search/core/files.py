"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from absld_search.core import faults
from absld_search.words import UsageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, beyond the limit of a file's size
SAID = ("database or disk is full", os.strerror(errno.ENOSPC))  # by SQLite, and by libraries that keep no number


def cache_folder() -> Path:
    """What is made once and kept, teachers and decoded images: `ABSLD_CACHE_DIR`, or the platform's place."""
    if named := os.environ.get("ABSLD_CACHE_DIR"):
        return Path(named)
    from platformdirs import user_cache_dir  # only where there is a cache: a GPU's benchmark has torch alone

    return Path(user_cache_dir("absld_search"))


@dataclass(frozen=True)
class Folders:
    """Where a person keeps data sets and teachers. Changes no number, and so is no part of any identity."""

    data: str = ""
    teachers: str = ""


def require_writable(flag: str, folder: Path) -> None:
    """Something can be written in `folder`, which need not be there yet, and is not made. Raises: UsageError."""
    place = folder
    try:
        place = existing(folder)
        with tempfile.TemporaryFile(dir=place):  # tried, since root is told that it may anywhere
            pass
    except OSError as error:
        why = error.strerror if place == folder else f"{place}: {error.strerror}"
        raise UsageError(f"{flag}: nothing can be written in {folder} ({why}).") from None


def existing(folder: Path) -> Path:
    """The nearest parent that there is."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place


@contextmanager
def replacing(path: Path, what: str = "file") -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, sync what was written there and move it to `path`.

    A kill at any moment leaves the old file or the new one, never a part. `what` names the injection points.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads may write one file too, and processes of two machines that have the same number.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{os.getpid()}.tmp")
    try:
        faults.at(f"{what}.before_write")
        yield temporary
        with open(temporary, "rb+") as handle:
            faults.at(f"{what}.before_fsync")
            os.fsync(handle.fileno())
        faults.at(f"{what}.before_rename")
        os.replace(temporary, path)
        faults.at(f"{what}.after_rename")
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes, what: str = "file") -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path, what) as temporary:
        temporary.write_bytes(content)


def sweep(folder: Path) -> None:
    """Delete the temporary files that killed writers left in `folder`; only for one who writes there alone."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def is_full(error: BaseException | None) -> bool:
    """Whether `error`, or what it came from, says that there is no room for what was to be written."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL or any(words in str(error) for words in SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


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
