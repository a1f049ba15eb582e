"""Checkpoints: atomic, hashed, loadable without running any code that came with them."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from absld_search.core.files import sha256, write_atomic

KEEP = 2  # the newest, and the one before in case the newest is damaged
NAME = re.compile(r"(?:epoch|kept)-(\d{5})-([0-9a-f]{16})\.pt")
log = logging.getLogger(__name__)


def save(folder: Path, epoch: int, state: Mapping[str, Any], keep: bool = False) -> Path:
    """Write the state after `epoch`. The name carries the content's hash, so that one rename publishes both.

    Of the others only the newest `KEEP` stay; one that was written with `keep` stays until `remove`.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    path = _write(folder, "kept" if keep else "epoch", epoch, buffer.getvalue())
    for _, old in _found(folder, "epoch")[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def kept(folder: Path, epoch: int) -> Path | None:
    """The checkpoint after `epoch` that stays, if it is there and whole."""
    found = [path for at, path in _found(folder, "kept") if at == epoch and _whole(path) is not None]
    return found[0] if found else None


def lend(path: Path, folder: Path) -> None:
    """Let the training in `folder` go on from another's checkpoint."""
    match = NAME.fullmatch(path.name)
    assert match
    _write(folder, "epoch", int(match[1]), path.read_bytes())


def _write(folder: Path, kind: str, epoch: int, content: bytes) -> Path:
    path = folder / f"{kind}-{epoch:05d}-{sha256(content)[:16]}.pt"
    write_atomic(path, content)
    return path


class Resumable(Protocol):
    """Anything whose state can be saved after an epoch."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Ended(Protocol):
    """An epoch that has ended."""

    number: int


class Saver:
    """Saves after an epoch, but not more often than every `seconds`, and always after the last."""

    def __init__(self, what: Resumable, folder: Path, epochs: int, seconds: float = 4.0) -> None:
        self.what, self.folder, self.epochs, self.seconds = what, folder, epochs, seconds
        self.saved_at = time.monotonic()

    def after(self, end: Ended) -> None:
        """Call it when an epoch has ended."""
        if end.number == self.epochs or time.monotonic() - self.saved_at >= self.seconds:
            save(self.folder, end.number, self.what.state_dict())
            self.saved_at = time.monotonic()


def go_on(what: Resumable, folder: Path, up_to: int | None = None) -> None:
    """Put `what` where its newest whole checkpoint is, if there is one; `up_to`: after that epoch or before."""
    state = newest(folder, up_to)
    if state is not None:
        what.load_state_dict(state)


def newest(folder: Path, up_to: int | None = None) -> dict[str, Any] | None:
    """The newest state that is whole, on the CPU; damaged ones are skipped and said. None: start anew."""
    for epoch, path in _found(folder):
        if up_to is not None and epoch > up_to:
            continue
        content = _whole(path)
        if content is not None:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        log.warning("checkpoint %s is damaged; the one before it is used", path)
    return None


def remove(folder: Path) -> None:
    """Delete all checkpoints of a training that is complete, those that were kept too."""
    for _, path in _found(folder):
        path.unlink(missing_ok=True)


def _whole(path: Path) -> bytes | None:
    """The content, if it is what its name says."""
    content, match = path.read_bytes(), NAME.fullmatch(path.name)
    return content if match and sha256(content)[:16] == match[2] else None


def _found(folder: Path, kind: str = "*") -> list[tuple[int, Path]]:
    """(epoch, path), newest first; of two for one epoch the later written."""
    named = [(NAME.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*.pt")]
    found = [(int(match[1]), path) for match, path in named if match]
    return sorted(found, key=lambda item: (item[0], item[1].stat().st_mtime_ns), reverse=True)
