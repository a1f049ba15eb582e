"""Writes the study's tables while it runs, so that a report can be made of a study that is not finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from absld_search.search import tables
from absld_search.search.background import Background
from absld_search.search.ledger import Ledger, Row
from absld_search.search.plan import Plan

PAUSE_SECONDS = 30.0  # between two writings
SHARE = 20  # and no more than one twentieth of the time: a large study takes minutes to combine


class Tabling:
    """An observer that has the tables written in the background, from what is on disk and in the ledger."""

    def __init__(self, plan: Plan, ledger: Ledger, say: Callable[[str], None]) -> None:
        self.plan, self.ledger = plan, ledger
        self.background = Background(lambda error: say(f"the tables of this moment are not written: {error}"), _nothing)
        self.due = 0.0  # when the next writing may begin; the first at once, for a report of a study that has begun

    def started(self, training: Row) -> None:
        self._ask()

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None:
        return

    def training_done(self, training: Row) -> None:
        return

    def trial_done(self, trial: Row) -> None:
        self._ask()

    def close(self) -> None:
        """Begin no more, and wait for the writing that is under way: the last word is the driver's own."""
        self.background.end()

    def _ask(self) -> None:
        if time.monotonic() >= self.due:
            self.due = float("inf")
            self.background.ask("tables", self._write)

    def _write(self) -> None:
        began = time.monotonic()
        try:
            # What is damaged is found, and trained again, when the driver writes the tables at the end.
            tables.write(self.plan, self.ledger)
        finally:
            now = time.monotonic()
            self.due = now + max(PAUSE_SECONDS, SHARE * (now - began))


def _nothing() -> None:
    return
