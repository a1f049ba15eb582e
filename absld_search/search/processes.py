"""Which process is which: by boot, pid namespace, pid and start time, so that a pid used again is not mistaken."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "ABSLD_DRIVER"  # a variable that everything a driver starts inherits; its value is the driver's token
PROC = Path("/proc")


@contextmanager
def told(words: Mapping[str, str]) -> Iterator[None]:
    """Processes started inside find `words` in their environment; afterwards this process's own is as it was."""
    before = {name: os.environ.get(name) for name in words}
    os.environ.update(words)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def host() -> str:
    """This boot of this machine, and this container of it: within it a pid means one process at a time."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x}"


def started(pid: int) -> str | None:
    """When a living process of this host began, in the kernel's own words; None where there is none.

    A process that has ended but was not waited for (a zombie) is none.
    """
    if not PROC.is_dir():  # not Linux
        with suppress(OSError):
            os.kill(pid, 0)
            return ""
        return None
    with suppress(OSError, IndexError):
        fields = _stat(pid)[1]
        return None if fields[0] in "ZX" else fields[19]
    return None


def parent(pid: int) -> int:
    """The pid of a process's parent; 0 where there is no such process."""
    with suppress(OSError, ValueError, IndexError):
        return int(_stat(pid)[1][1])
    return 0


def children(pid: int) -> dict[int, str]:
    """{pid: name} of a process's living children."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError, IndexError):
            name, fields = _stat(int(folder.name))
            if int(fields[1]) == pid and fields[0] not in "ZX":
                found[int(folder.name)] = name
    return found


def _stat(pid: int) -> tuple[str, list[str]]:
    """(name, state, parent and all that follows). Raises: OSError where there is no such process."""
    # The name in brackets may hold anything, spaces and brackets too; what follows it is fixed.
    front, _, rest = (PROC / str(pid) / "stat").read_text().rpartition(")")
    return front.partition("(")[2], rest.split()


def marked(token: str) -> list[int]:
    """Living processes that were started by the driver with this token, this one not counted."""
    mark, found = f"{MARK}={token}".encode(), []
    for environ in PROC.glob("[0-9]*/environ"):
        with suppress(OSError):
            pid = int(environ.parent.name)
            if pid != os.getpid() and mark in environ.read_bytes().split(b"\0") and started(pid) is not None:
                found.append(pid)
    return found


def kill_marked(token: str, seconds: float = 3.0) -> int:
    """End whatever a driver started and left; how many there were. They may start others meanwhile, so: until none."""
    seen, deadline = set[int](), time.monotonic() + seconds
    while (pids := marked(token)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        seen |= set(pids)
        time.sleep(0.05)
    return len(seen)
