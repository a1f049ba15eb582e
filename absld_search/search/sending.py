"""A training's folder and the store: fetched before it begins, sent when a checkpoint or the result is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from absld_search.core.results import read_result
from absld_search.core.store import LOG, Store
from absld_search.search.ledger import COMPLETE, Row
from absld_search.search.plan import Plan
from absld_search.words import Away, masked

PAUSES = (5.0, 20.0, 60.0)  # seconds between two tries where the store must be reached
T = TypeVar("T")


class Sending:
    """Around a training, whose folder may have a trunk's beside it: what the store has of them is here on entering, and
    what is here is there on leaving.

    Where the store is away the training goes on; only before it and at its end must it be reached. Without a URI it
    does nothing.
    """

    def __init__(self, uri: str, place: str, folders: Sequence[Path], say: Callable[[str], None]) -> None:
        self.uri, self.place, self.folders, self.say = uri, place, folders, say
        self.sent: set[Path] = set()

    def __enter__(self) -> Sending:
        """Raises: Away."""
        if self.uri:
            patiently(self._pull)
        self.sent = self._checkpoints()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A training whose numbers ended it has ended too, and its log says where."""
        if self.uri and (kind is None or issubclass(kind, ArithmeticError)):
            patiently(self._push)

    def after_epoch(self) -> None:
        """Send what is new, if a checkpoint is."""
        if not self.uri or self._checkpoints() <= self.sent:
            return
        self.sent = self._checkpoints()
        try:
            self._push()
        except OSError as error:
            self.say(f"the store is away, the training goes on ({str(error).splitlines()[0]})")

    def _pull(self) -> None:
        for folder in self.folders:
            Store(self.uri).pull(f"{self.place}/{folder.name}", folder)

    def _push(self) -> None:
        for folder in self.folders:
            Store(self.uri).push(folder, f"{self.place}/{folder.name}")

    def _checkpoints(self) -> set[Path]:
        return {path for folder in self.folders for path in folder.glob("*.pt")}


def away(error: OSError) -> Away:
    """What the store did, in one line without secrets."""
    return Away(masked(f"the store is away ({str(error).splitlines()[0]})"))


def patiently(copy: Callable[[], T]) -> T:
    """What `copy` gives. Raises: Away, once that has failed for a while."""
    for pause in (*PAUSES, None):
        try:
            return copy()
        except OSError as error:
            if pause is None:
                raise away(error) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


class Fetching:
    """An observer of the driver: what a training left in the store is in the study's folder before anybody reads it."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self.uri, self.say = plan, plan.request.store, say

    def training_done(self, training: Row) -> None:
        """Where the store is away it is asked again at the end."""
        try:
            self.fetch(training)
        except OSError as error:
            self.say(f"training {training['training']}: not fetched yet, the store is away ({error})")

    def fetch(self, training: Row) -> None:
        """Raises: OSError."""
        folder = self.plan.folder / "trainings" / training["training"]
        if self.uri and training["state"] == COMPLETE and read_result(folder) is None:
            Store(self.uri).pull(f"{place(self.plan)}/{folder.name}", folder)

    def log(self, training: str) -> None:
        """What the store has of the epochs of a training that runs elsewhere, or has failed there. Raises: Away."""
        folder = self.plan.folder / "trainings" / training
        if not self.uri or read_result(folder) is not None:
            return
        try:
            Store(self.uri).pull(f"{place(self.plan)}/{training}", folder, only=LOG)
        except OSError as error:
            raise away(error) from error

    def forget(self, training: str) -> None:
        """What is damaged and gone here is gone in the store too: from there it would be taken for complete again."""
        try:
            if self.uri:
                Store(self.uri).push(self.plan.folder / "trainings" / training, f"{place(self.plan)}/{training}")
        except OSError as error:
            self.say(f"training {training}: what the store has of it is damaged, and the store is away ({error})")

    def publish(self, *folders: str) -> None:
        """Send what the driver has made: tables and report."""
        try:
            for name in folders if self.uri else ():
                Store(self.uri).push(self.plan.folder / name, f"{self.plan.request.study}/{name}")
        except OSError as error:
            self.say(f"tables and report are not in the store, which is away ({error})")

    def started(self, training: Row) -> None: ...
    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None: ...
    def trial_done(self, trial: Row) -> None: ...


def place(plan: Plan) -> str:
    """The folder in the store where a study's trainings lie."""
    return f"{plan.request.study}/trainings"
