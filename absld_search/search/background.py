"""Work on a thread of its own, tried until it succeeds, so that nobody else waits for a server."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

Task = Callable[[], object]
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds after a failure; doubled while nothing succeeds
PATIENCE = 25.0  # seconds that a caller of `drain` gives to one task
FAILURES = 3  # in a row, after which `drain` believes that nobody answers


class Background:
    """Tasks by key. Asking again for a key replaces what was asked for, and runs once more if it runs just now.

    A task that fails goes to the end of the queue, so that one that can never succeed does not stop the others.
    What tasks read must be on disk: nothing else outlives the process.
    """

    def __init__(self, failed: Callable[[Exception], None], empty: Callable[[], None]) -> None:
        """`failed` hears of every failure, `empty` of every moment at which nothing is left; both on the thread."""
        self.failed, self.empty = failed, empty
        self.tasks: dict[str, tuple[int, Task]] = {}
        self.errors: dict[str, Exception] = {}  # of tasks that wait to be tried again
        self.changed = threading.Condition()
        self.numbers = itertools.count()
        self.pause, self.row, self.hurry, self.stopped = FIRST_PAUSE, 0, False, False
        self.last_answer = time.monotonic()
        self.thread: threading.Thread | None = None

    def ask(self, key: str, task: Task) -> None:
        """Have `task` done. Returns at once."""
        with self.changed:
            self.tasks[key] = (next(self.numbers), task)
            if self.thread is None:  # a daemon: a server that hangs must not hold up the end of the process
                self.thread = threading.Thread(target=self._work, name="background", daemon=True)
                self.thread.start()
            self.changed.notify_all()

    def wait(self, key: str, seconds: float) -> Exception | None:
        """Wait until the task was done, or has failed once; then its error. At most `seconds`."""
        with self.changed:
            self.changed.wait_for(lambda: key not in self.tasks or key in self.errors, seconds)
            return self.errors.get(key)

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is left, and whether that came about: at most `seconds`, and no longer than there is
        hope, which ends with a few failures in a row or a task that gives no answer."""
        deadline = time.monotonic() + seconds
        with self.changed:
            self.errors.clear()
            self.row, self.hurry, self.last_answer = 0, True, time.monotonic()
            self.changed.notify_all()
            while self.tasks and not self._hopeless() and (left := deadline - time.monotonic()) > 0:
                self.changed.wait(min(left, 0.5))
            self.hurry = False
            return not self.tasks

    def stop(self) -> None:
        """Begin nothing more, for good. A task that runs just now is not waited for."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def end(self) -> None:
        """The same, and wait for the task that runs just now."""
        self.stop()
        if self.thread is not None:
            self.thread.join()

    def _hopeless(self) -> bool:
        silent = time.monotonic() - self.last_answer > PATIENCE
        return silent or self.row >= FAILURES or self.tasks.keys() <= self.errors.keys()

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.tasks or self.stopped)
                if self.stopped:
                    return
                key, (number, task) = next(iter(self.tasks.items()))
            error = _attempt(task)
            if error is not None:
                self.failed(error)
            with self.changed:
                self._settle(key, number, error)
                done = not self.tasks
                self.changed.notify_all()
            if done:
                self.empty()
            elif error is not None:
                self._rest()

    def _settle(self, key: str, number: int, error: Exception | None) -> None:
        self.last_answer = time.monotonic()
        latest, task = self.tasks.pop(key)
        if error is None:
            self.row, self.pause = 0, FIRST_PAUSE
            self.errors.pop(key, None)
        else:
            self.row += 1
            self.errors[key] = error
        if error is not None or latest != number:  # asked for again meanwhile: what it read is old
            self.tasks[key] = (latest, task)

    def _rest(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.hurry or self.stopped, self.pause)
            self.pause = min(2 * self.pause, LONGEST_PAUSE)


def _attempt(task: Task) -> Exception | None:
    try:
        task()
    except Exception as error:  # whatever a server or its database throws must not stop a study
        return error
    return None
