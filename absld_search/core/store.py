"""Trainings in a place that all machines reach: any `pyarrow.fs` URI (file://, s3://, gs://, hdfs://, ...).

Training happens in a folder of the machine's own disk. What is whole there is copied to the store after each
checkpoint, and fetched from it before a training begins or goes on, wherever that is. A file in the store is whole or
not there: objects are published when they have been sent, on file systems a rename does it. What a copy was
interrupted in is caught as a torn write is: checkpoints carry their hash, a result the sizes of its tables.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from absld_search.core.files import write_atomic
from absld_search.words import UsageError, masked

LAST = "result.json"  # says that a training is complete, so it is sent after all that it speaks of
LOG = "epochs.jsonl"  # only grows
PUBLISHED_WHOLE = ("s3", "gcs", "abfs")


class Store:
    """Folders of files below a URI."""

    def __init__(self, uri: str) -> None:
        """Raises: UsageError where no file system is meant by `uri`."""
        self.uri = uri
        try:
            self.fs, self.root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise UsageError(f"--store {masked(uri)}: {masked(str(error).splitlines()[0])}") from None

    def check(self) -> None:
        """Whether it can be written in, by a file that is gone again. Raises: UsageError."""
        try:
            name = f"{self.root}/.{uuid.uuid4().hex}"
            self._publish(name, b"?")
            self.fs.delete_file(name)
        except OSError as error:
            said = masked(str(error).splitlines()[0])
            raise UsageError(f"--store {masked(self.uri)}: nothing can be written there ({said}).") from None

    def push(self, folder: Path, name: str) -> None:
        """Make `name` in the store what `folder` is. Raises: OSError."""
        there, here = self.files(name), _own(folder)
        changed = [path for path in here if there.get(path.name) != path.stat().st_size]
        for path in sorted(changed, key=_order):
            self.write(f"{name}/{path.name}", path.read_bytes())
        for gone in there.keys() - {path.name for path in here}:
            self.fs.delete_file(f"{self.root}/{name}/{gone}")

    def pull(self, name: str, folder: Path, only: str = "") -> None:
        """Fetch into `folder` what it lacks of `name` in the store, or the one file that is asked for.

        Raises: OSError.
        """
        there = {file: size for file, size in self.files(name).items() if only in ("", file)}
        for file, size in sorted(there.items(), key=lambda item: (item[0] == LAST, item[0])):
            path = folder / file
            known = path.stat().st_size if path.exists() else -1
            if known < size if file == LOG else known != size:
                write_atomic(path, self.read(f"{name}/{file}"))

    def read(self, name: str) -> bytes:
        """A file's content. Raises: OSError."""
        with self.fs.open_input_stream(f"{self.root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """A file, whole or not at all. Raises: OSError."""
        self._publish(f"{self.root}/{name}", content)

    def files(self, name: str) -> dict[str, int]:
        """{file: bytes} of a folder in the store; nothing where there is none. Raises: OSError."""
        chosen = fs.FileSelector(f"{self.root}/{name}", allow_not_found=True)
        found = self.fs.get_file_info(chosen)
        return {each.base_name: each.size for each in found if each.type == fs.FileType.File and _kept(each.base_name)}

    def _publish(self, path: str, content: bytes) -> None:
        if self.fs.type_name in PUBLISHED_WHOLE:
            with self.fs.open_output_stream(path) as stream:
                stream.write(content)
            return
        parent, _, name = path.rpartition("/")
        self.fs.create_dir(parent, recursive=True)
        temporary = f"{parent}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
        with self.fs.open_output_stream(temporary) as stream:
            stream.write(content)
        self.fs.move(temporary, path)


def _order(path: Path) -> tuple[bool, bool, str]:
    """The log before the checkpoint that has come as far, as a training writes them, and the result after all."""
    return path.name == LAST, path.suffix == ".pt", path.name


def _own(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and _kept(path.name)] if folder.is_dir() else []


def _kept(name: str) -> bool:
    """Locks and half-written files are a machine's own."""
    return not name.startswith(".") and not name.endswith((".tmp", ".lock")) and name != "lock"
