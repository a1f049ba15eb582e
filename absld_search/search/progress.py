"""What the person at the terminal sees while a study runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from absld_search.search.halving import RUNG
from absld_search.search.ledger import COMPLETE, FAILED, Ledger, Row
from absld_search.search.plan import Plan
from absld_search.search.queue import CONFIRM

BEST = "worst_class_robust_accuracy"


class Progress:
    """Trainings done and running, the time left, the best worst class so far: a live line on a terminal, plain
    lines elsewhere."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger
        self.epochs: dict[str, int] = {}  # training that Ray has taken -> epoch, 0 until it has ended one
        self.names: dict[str, str] = {}
        self.known: dict[str, tuple[bool, float | None]] | None = None  # training -> whether it has ended, worst class
        self.began, self.fresh = 0.0, 0  # when the first training of this start began, and how many have ended since
        self.console = Console(file=sys.stdout)
        self.live = Live(self, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()

    def started(self, training: Row) -> None:
        self.began = self.began or time.monotonic()
        (trial, *_) = self.ledger.trials(config=training["config"])
        self.names[training["training"]] = f"{trial['trial']} seed {training['seed']}"
        self.epochs[training["training"]] = 0
        self._trainings().setdefault(training["training"], (False, None))

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None:
        self.epochs[training] = number

    def training_done(self, training: Row) -> None:
        self.epochs.pop(training["training"], None)
        self._trainings()[training["training"]] = _ended(training)
        self.fresh += training["state"] in (COMPLETE, FAILED)
        if training["state"] == FAILED:
            self.say(f"{self.names[training['training']]} failed: {training['reason']}")
        elif training["state"] == COMPLETE and training["stage"] == CONFIRM and not self.console.is_terminal:
            self.say(f"{self.headline()}  {self.names[training['training']]} confirmed")

    def trial_done(self, trial: Row) -> None:
        if trial["state"] == COMPLETE and not self.console.is_terminal:
            values = "  ".join(f"{name} {value:.3f}" for name, value in trial["objectives"].items())
            self.say(f"{self.headline()}  {trial['trial']}: {values}")

    def headline(self) -> str:
        """`12/57 trainings, 2 running, about 3 min left, best worst class 0.564`."""
        done, total = self.counts()
        running = sum(epoch > 0 for epoch in self.epochs.values())
        parts = [f"{done}/{total} trainings", f"{running} running", self._left(total - done)]
        best = self._best()
        return ", ".join([*parts, f"best worst class {best:.3f} (val)" if best is not None else ""]).rstrip(", ")

    def counts(self) -> tuple[int, int]:
        """Trainings done, and how many the plan comes to."""
        known = self._trainings()
        planned = sum(arm.trials for arm in self.plan.arms) * len(self.plan.search_seeds)
        planned += len(self.plan.arms) * len(self.plan.confirm_seeds)
        return sum(ended for ended, _ in known.values()), max(planned, len(known))

    def _trainings(self) -> dict[str, tuple[bool, float | None]]:
        """What the ledger says of each training: read once a start, then kept up, so that a line costs no query."""
        if self.known is None:
            self.known = {row["training"]: _ended(row) for row in self.ledger.trainings()}
        return self.known

    def _left(self, trainings: int) -> str:
        if not self.fresh:
            return "time left unknown"
        seconds = (time.monotonic() - self.began) / self.fresh * trainings
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _best(self) -> float | None:
        return max((worst for _, worst in self._trainings().values() if worst is not None), default=None)

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(self.headline())
        for training, epoch in list(self.epochs.items()):
            where = f"epoch {epoch}/{self._total(training)}" if epoch else "starting"
            table.add_row(f"  {self.names[training]:<24}{where}")
        return table

    def _total(self, training: str) -> int:
        (row,) = self.ledger.trainings(training=training)
        return int(row["job"]["schedule"]["epochs"])


def _ended(training: Row) -> tuple[bool, float | None]:
    """Whether a training has ended, and its worst class where it was trained whole."""
    whole = training["state"] == COMPLETE and training["stage"] != RUNG
    return training["state"] in (COMPLETE, FAILED), (training["metrics"] or {}).get(BEST) if whole else None
