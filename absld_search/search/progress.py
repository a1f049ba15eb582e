"""What the person at the terminal sees while a study runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from absld_search.search import costs, standing
from absld_search.search.gpu_use import Watched
from absld_search.search.halving import RUNG, SEARCH
from absld_search.search.ledger import COMPLETE, FAILED, TOOK, Ledger, Row
from absld_search.search.plan import Plan
from absld_search.search.queue import CONFIRM

READ_SECONDS = 1.0  # between two looks at the ledger while the live display is drawn
READING_SHARE = 0.02  # of the driver's time, at most, for looks that take longer than a moment
MOMENT = 0.02  # seconds
PASSING_SECONDS = 10.0  # between two lines of what passes, in a file


class Progress:
    """Trainings done and running, rungs, the time left, the front and the best worst class so far, the GPUs: a live
    display on a terminal, plain lines elsewhere."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger
        self.epochs: dict[str, int] = {}  # training that Ray has taken -> epoch, 0 until it has ended one
        self.passing_due = 0.0
        self.slots = 1  # the most trainings that have run at a time
        self.gpus, self.planned = Watched(), planned(plan)
        self.console = Console(file=sys.stdout)
        self.live = Live(self, console=self.console, refresh_per_second=2, transient=True)
        self._read: tuple[float, standing.Standing] | None = None  # when the next look is due, and the last one

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

    def passing(self, line: str) -> None:
        """A line that the next one replaces, on a terminal; elsewhere one now and then that stays."""
        if self.console.is_terminal:
            width = self.console.width - 1
            self.console.print(line[:width].ljust(width), markup=False, highlight=False, end="\r")
        elif line and time.monotonic() >= self.passing_due:
            self.passing_due = time.monotonic() + PASSING_SECONDS
            self.say(line)

    def resumed(self, more: bool) -> None:
        """First of all, what is there already; nothing where the study begins. `more`: whether anything is left."""
        found = self.now(with_front=False)
        if found.done:
            of, goes_on = (found.total, "continuing") if more else (found.done, "nothing is left to train")
            self.say(f"{found.done} of {of} trainings are done, {goes_on}")

    def started(self, training: Row) -> None:
        self.epochs[training["training"]] = 0
        self.slots = max(self.slots, len(self.epochs))

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None:
        self.epochs[training] = number

    def training_done(self, training: Row) -> None:
        self.epochs.pop(training["training"], None)
        if training["state"] == FAILED:
            self.say(f"{self._name(training)} failed: {training['reason']}")
        elif training["state"] == COMPLETE and training["stage"] == CONFIRM and not self.console.is_terminal:
            self.say(f"{self.headline()}  {self._name(training)} confirmed")

    def _name(self, training: Row) -> str:
        (trial, *_) = self.ledger.trials(config=training["config"])
        return f"{trial['trial']} seed {training['seed']}"

    def trial_done(self, trial: Row) -> None:
        if trial["state"] == COMPLETE and not self.console.is_terminal:
            values = "  ".join(f"{name} {value:.3f}" for name, value in trial["objectives"].items())
            self.say(f"{self.headline()}  {trial['trial']}: {values}")

    def headline(self) -> str:
        """`12/57 trainings, 2 running, about 3 min left, best worst class 0.564 (val)`."""
        return standing.headline(self._lately(with_front=False))

    def now(self, with_front: bool = True) -> standing.Standing:
        """How the study stands. The front costs a comparison with every trial, which a line a trial does not show."""
        rows = (self.ledger.trials(), self.ledger.trainings())
        objectives = self.plan.objectives if with_front else {}
        took = self.ledger.facts(TOOK)
        return standing.standing(*rows, objectives, self.planned, self.epochs, slots=self.slots, took=took)

    def __rich__(self) -> Group:
        found = self._lately(READ_SECONDS)
        head = Table.grid(padding=(0, 2))
        head.add_row(ProgressBar(total=max(1, found.total), completed=found.done, width=30), standing.headline(found))
        rest = Table.grid(padding=(0, 2))
        for line in standing.lines(found, self.gpus.now())[1:]:
            rest.add_row(line)
        return Group(head, rest)

    def _lately(self, seconds: float = 0.0, with_front: bool = True) -> standing.Standing:
        """The same, at most `seconds` old. Of a study with thousands of trials, which takes long to read, older: a line
        that each of them writes must not cost more the more of them there are."""
        began = time.monotonic()
        if self._read is None or began >= self._read[0]:
            found = self.now(with_front)
            took = time.monotonic() - began
            self._read = (began + max(seconds, took / READING_SHARE if took > MOMENT else 0.0), found)
        return self._read[1]


def planned(plan: Plan) -> dict[str, int]:
    """Stage -> trainings that a plan comes to: with rungs about, and so with hours or epochs for a budget."""
    found = {SEARCH: 0, CONFIRM: len(plan.arms) * len(plan.confirm_seeds)}
    for arm in plan.arms:
        trials = costs.expected(plan, arm)
        *rungs, whole = [max(1, trials // plan.request.eta**rung) for rung in range(len(plan.rungs(arm)))]
        found[SEARCH] += whole * len(plan.search_seeds)
        found |= {RUNG: found.get(RUNG, 0) + sum(rungs)} if rungs else {}
    return found
