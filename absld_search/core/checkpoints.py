"""Checkpoints: atomic, hashed, loadable without running any code that came with them."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import torch

from absld_search.core.files import sha256, sweep, write_atomic

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
    if not keep:
        _thin(folder, epoch, path)
    return path


def kept(folder: Path, epoch: int) -> Path | None:
    """The checkpoint after `epoch` that stays, if it is there and whole."""
    found = [path for at, path in _found(folder, "kept") if at == epoch and _is_whole(path)]
    return found[0] if found else None


def lend(path: Path, folder: Path) -> None:
    """Let the training in `folder` go on from another's checkpoint."""
    match = NAME.fullmatch(path.name)
    assert match
    _write(folder, "epoch", int(match[1]), path.read_bytes())


def _write(folder: Path, kind: str, epoch: int, content: bytes) -> Path:
    path = folder / f"{kind}-{epoch:05d}-{sha256(content)[:16]}.pt"
    write_atomic(path, content, "checkpoint")
    return path


def _thin(folder: Path, epoch: int, newest: Path) -> None:
    """Keep `newest` and the one before. Later ones are of a past that was given up, since they were damaged."""
    found = _found(folder, "epoch")
    earlier = [path for number, path in found if number < epoch]
    for _, path in found:
        if path not in (newest, *earlier[: KEEP - 1]):
            path.unlink(missing_ok=True)


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


def go_on(
    what: Resumable, folder: Path, say: Callable[[str], None] = log.warning, up_to: int | None = None
) -> None:  # fmt: skip
    """Put `what` where its newest whole checkpoint is, if there is one; `up_to`: after that epoch or before.
    `say` hears of damaged ones."""
    sweep(folder)
    state = newest(folder, say, up_to)
    if state is not None:
        what.load_state_dict(state)


def newest(
    folder: Path, say: Callable[[str], None] = log.warning, up_to: int | None = None
) -> dict[str, Any] | None:  # fmt: skip
    """The newest state that is whole, on the CPU; `say` hears of damaged ones. None: start anew."""
    found = [path for epoch, path in _found(folder) if up_to is None or epoch <= up_to]
    for path, before in zip_longest(found, found[1:]):
        try:
            return _read(path)
        except MemoryError:
            raise  # says nothing of the file
        except Exception as error:  # a file that is not ours makes the unpickler raise anything
            rest = f"{before.name} before it is used" if before else "there is none before it: begun anew"
            say(f"checkpoint {path.name} is damaged ({_cause(path, error)}); {rest}")
    return None


def _read(path: Path) -> dict[str, Any]:
    """Raises: whatever, where it is not what was saved. Runs no code of the file's, even where its hash is right."""
    content = path.read_bytes()
    match = NAME.fullmatch(path.name)
    if match is None or sha256(content)[:16] != match[2]:
        raise ValueError("its content does not match its hash")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _cause(path: Path, error: Exception) -> str:
    """What a person can make use of, from the first bytes where they tell."""
    with suppress(OSError):
        with open(path, "rb") as handle:
            first = handle.read(512)
        if first.lstrip()[:1] == b"<":
            return "an HTML page"
        if not first:
            return "empty"
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def remove(folder: Path) -> None:
    """Delete all checkpoints of a training that is complete, those that were kept too, and what a kill left half
    written."""
    sweep(folder)
    for _, path in _found(folder):
        path.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    match = NAME.fullmatch(path.name)
    return match is not None and sha256(path.read_bytes())[:16] == match[2]


def _found(folder: Path, kind: str = "*") -> list[tuple[int, Path]]:
    """(epoch, path), newest first. Never by the files' times: a clock can be set back."""
    named = [(NAME.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*.pt")]
    return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)
