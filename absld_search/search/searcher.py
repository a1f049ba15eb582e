"""The bridge to Ray Tune: a Searcher that hands out the queue's trainings and brings back what they were worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from absld_search.search import wire
from absld_search.search.ledger import WAITING, Row
from absld_search.search.queue import TRIES, Observer, Queue


class LedgerSearcher(Searcher):
    """Holds no state of its own: Tune may pickle it as it likes, the ledger is the truth.

    Tune's own `OptunaSearch` tells Optuna the values of trials that a scheduler stopped, leaves trials with a
    nan RUNNING for ever, and does not know seeds; so it is not used.
    """

    def __init__(self, queue: Queue, observer: Observer, say: Callable[[str], None]) -> None:
        super().__init__(metric=None, mode=None)  # Tune must not judge the metrics: the queue does
        self.queue, self.observer, self.say = queue, observer, say
        self.live: dict[str, Row] = {}  # Tune's trial id -> its training

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A training for Tune's new trial; None: ask later; FINISHED: there is nothing left."""
        row = self.queue.take()
        if row is None:
            return Searcher.FINISHED if self.queue.finished() else None
        self.live[trial_id] = row
        self.observer.started(row)
        return wire.packed(training=row["training"], job=row["job"])

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """An epoch has ended."""
        row = self.live[trial_id]
        said = wire.unpacked(result)
        for note in said.get("notes", ()):
            self.say(f"training {row['training']}: {note}")
        if "epoch" in said:
            self.observer.epoch(row["training"], said["epoch"], said["metrics"])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A training has ended, well (`final` in its last report) or not."""
        if trial_id not in self.live:
            return
        row = self.live.pop(trial_id)
        last = wire.unpacked(result)
        if last.get("paused"):
            self._pause(row, str(last["paused"]))
        elif error or last.get("lost"):
            self._machine_failed(row, str(last.get("lost") or "its worker died"))
        else:
            self._ended(row, last)

    def _pause(self, row: Row, reason: str) -> None:
        """The disk is full or the store away: nothing new begins, and what has stopped is as at its last checkpoint."""
        if not self.queue.paused:
            self.say(f"{reason}: nothing new is begun, and the last whole checkpoints are kept")
        self.queue.paused = reason
        self.observer.training_done(self.queue.put_back(row["training"], reason))

    def _machine_failed(self, row: Row, reason: str) -> None:
        after = self.queue.machine_failed(row["training"], reason)
        lost = self.queue.lost[row["training"]]
        again = "is tried again" if lost < TRIES else "is tried again when the study is started again"
        if after["state"] == WAITING:
            self.say(f"training {row['training']}: {reason} (attempt {after['attempts']}); it {again}")
        self.observer.training_done(after)

    def _ended(self, row: Row, last: Mapping[str, Any]) -> None:
        metrics = last.get("final") or None
        reason = "" if metrics else str(last.get("failed") or "crashed: see Ray's logs")
        facts = {"epochs": int(last.get("epochs", 0)), "seconds": last.get("seconds")}
        decided = self.queue.done(row["training"], metrics, reason, **facts)
        (ended,) = self.queue.ledger.trainings(training=row["training"])
        self.observer.training_done(ended)
        for trial in decided:
            self.observer.trial_done(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles searchers; a database URL, and its password, has no place in such a file

    def save(self, checkpoint_path: str) -> None:
        """Tune insists on a file."""
        Path(checkpoint_path).write_text("the ledger is the truth")

    def restore(self, checkpoint_path: str) -> None:
        """Never: every start builds a fresh Tuner from the ledger."""
        raise NotImplementedError("run the same command again instead")
