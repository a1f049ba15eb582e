"""How a run ends before its time: once politely (75), and by a thread of its own where the main one does not get on.

The main thread may be deep in Ray, in a database's lock or in MLflow when a signal comes, and Python runs handlers in
the main thread only. The interpreter writes every signal to a pipe at once, though; what reads it here is a thread.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

INTERRUPTED, AT_ONCE = 75, 130  # exit codes
GRACE = {signal.SIGTERM: 12.0, signal.SIGINT: 60.0}  # seconds in which a clean stop must have come to its end
CLEANING = 4.0  # seconds for what is done before the process ends itself, so SIGTERM is over in 20 s
STOPPING = "stopping cleanly; once more (Ctrl-C) stops at once"
Guard = Callable[[], str]  # why the run cannot go on; empty: it can


class Interruption:
    """SIGINT or SIGTERM: a clean stop. SIGINT twice: an end at once. A guard's word: an end at once too, with 75."""

    def __init__(self, clean_up: Callable[[], object]) -> None:
        self.clean_up = clean_up  # before an end at once: release what is held, kill what was started
        self.guards: list[Guard] = []
        self.deadline, self.ints = float("inf"), 0
        self._read, self._write = os.pipe()
        self._over = threading.Event()

    def __enter__(self) -> Interruption:
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._handlers:  # a shell's background job is born with SIGINT ignored
            signal.signal(number, interrupt)
        threading.Thread(target=self._watch, daemon=True, name="interruption").start()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        if self.deadline == float("inf"):  # else it goes on: leaving Python can take its time too
            self._over.set()

    def end(self, code: int, why: str) -> None:
        """End the process now, from whatever thread."""
        said = f"{why} Run the same command again to continue."
        if code == AT_ONCE:
            _tell(said)
        cleaning = threading.Thread(target=self.clean_up, daemon=True)
        cleaning.start()
        cleaning.join(2.5 if code == AT_ONCE else CLEANING)
        if code != AT_ONCE:
            _tell(said)  # last, below what Ray's processes say as they go
        os._exit(code)

    def _watch(self) -> None:
        while not self._over.is_set():
            if select.select([self._read], [], [], 0.5)[0]:
                for number in os.read(self._read, 64):
                    self._signal(number)
            if time.monotonic() > self.deadline:
                self.end(INTERRUPTED, "stopped: the clean end took too long, so what was running was ended at once.")
            for why in filter(None, (guard() for guard in list(self.guards))):
                # A signal for the whole process group ended Ray too: that is no fault to look into.
                self.end(INTERRUPTED, why if self.deadline == float("inf") else "interrupted, and Ray with it.")
        os.close(self._read)
        os.close(self._write)

    def _signal(self, number: int) -> None:
        if number in GRACE:
            self.deadline = min(self.deadline, time.monotonic() + GRACE[signal.Signals(number)])
        self.ints += number == signal.SIGINT
        if self.ints >= 2:
            self.end(AT_ONCE, "stopped at once.")
        if number == signal.SIGINT:
            _tell(STOPPING)


def interrupt(*_: object) -> None:
    """A SIGTERM outside Ray's own loop is a Ctrl-C."""
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    """Past Python's buffers, whose locks the main thread may hold."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
