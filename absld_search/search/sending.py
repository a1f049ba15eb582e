"""A training's folder and the store: fetched before it begins, sent when a checkpoint or the result is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from absld_search.core.results import read_result
from absld_search.core.store import Store
from absld_search.search.ledger import COMPLETE, Row
from absld_search.search.plan import Plan


class Sending:
    """Around a training: what the store has of it is here on entering, and what is here is there on leaving.

    Where the store is away the training goes on; only at its end must it be reached, or the training counts as lost
    and is tried again, which costs a copy. Without a URI it does nothing.
    """

    def __init__(self, uri: str, place: str, folder: Path, say: Callable[[str], None]) -> None:
        self.uri, self.name, self.folder, self.say = uri, f"{place}/{folder.name}", folder, say
        self.sent: set[str] = set()

    def __enter__(self) -> Sending:
        if self.uri:
            Store(self.uri).pull(self.name, self.folder)
            self.sent = self._checkpoints()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.uri and kind is None:
            Store(self.uri).push(self.folder, self.name)

    def after_epoch(self) -> None:
        """Send what is new, if a checkpoint is."""
        if not self.uri or self._checkpoints() <= self.sent:
            return
        self.sent = self._checkpoints()
        try:
            Store(self.uri).push(self.folder, self.name)
        except OSError as error:
            self.say(f"the store is away, the training goes on ({str(error).splitlines()[0]})")

    def _checkpoints(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.pt")}


class Fetching:
    """An observer of the driver: what a training left in the store is in the study's folder before anybody reads it."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.uri = plan, plan.request.store

    def training_done(self, training: Row) -> None:
        folder = self.plan.folder / "trainings" / training["training"]
        if self.uri and training["state"] == COMPLETE and read_result(folder) is None:
            Store(self.uri).pull(f"{place(self.plan)}/{folder.name}", folder)

    def publish(self, *folders: str) -> None:
        """Send what the driver has made: tables and report."""
        for name in folders if self.uri else ():
            Store(self.uri).push(self.plan.folder / name, f"{self.plan.request.study}/{name}")

    def started(self, training: Row) -> None: ...
    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None: ...
    def trial_done(self, trial: Row) -> None: ...


def place(plan: Plan) -> str:
    """The folder in the store where a study's trainings lie."""
    return f"{plan.request.study}/trainings"
