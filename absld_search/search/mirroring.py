"""Keeps the MLflow mirror true to the ledger. MLflow may be away: the study never waits for it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from filelock import FileLock

from absld_search.core.metrics import NAMES
from absld_search.core.records import EpochLog
from absld_search.search.ledger import COMPLETE, FAILED, INFEASIBLE, STOPPED, Ledger, Row
from absld_search.search.plan import Plan
from absld_search.search.queue import CONFIRM, FINAL, JUDGED, front_trials
from absld_search.search.tracking import Mirror
from absld_search.words import UsageError, masked

FLUSH_SECONDS = 15.0  # between looks at a running training's epochs
STATUS: dict[str, Literal["FINISHED", "FAILED"]] = {
    **dict.fromkeys((COMPLETE, STOPPED, INFEASIBLE), "FINISHED"), FAILED: "FAILED",
}  # fmt: skip


class Mirroring:
    """An observer that repeats the ledger to MLflow. While MLflow is away it keeps silent, and catches up at the end;
    what it then can't say, the next start of the study says."""

    def __init__(self, plan: Plan, ledger: Ledger, say: Callable[[str], None]) -> None:
        self.plan, self.ledger, self.say = plan, ledger, say
        tuned = sorted({name for arm in plan.arms for name in arm.tuned})
        artifacts = plan.folder.absolute() / "mlflow-artifacts"
        identity = ledger.fact("identity", uuid.uuid4().hex)
        request = plan.request
        self.mirror = Mirror(request.tracking_uri, request.study, artifacts, plan.objectives, tuned, identity)
        self.sent: dict[str, float] = {}  # running training -> when its epochs were last sent
        self.told: set[str] = set()  # trainings whose end MLflow knows
        self.away = False

    def open(self) -> None:
        """Make or find the experiment. Raises: UsageError where it was deleted, for only a person knows what to do."""
        self._try(self._open)

    def _open(self) -> None:
        # MLflow makes its database without a lock: of two studies that start at once, one would die.
        with FileLock(self.plan.request.out / "mlflow.lock"):
            try:
                self.mirror.open()
            except ValueError as error:
                raise UsageError(masked(str(error))) from None

    def started(self, training: Row) -> None:
        self.sent[training["training"]] = time.monotonic()

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None:
        if time.monotonic() - self.sent.get(training, 0.0) >= FLUSH_SECONDS:
            self.sent[training] = time.monotonic()
            (row,) = self.ledger.trainings(training=training)
            self._try(lambda: self._training(row))

    def training_done(self, training: Row) -> None:
        self.sent.pop(training["training"], None)
        self._try(lambda: self._training(training))

    def trial_done(self, trial: Row) -> None:
        self._try(lambda: self._trial_end(trial))
        self._try(self._fronts)

    def catch_up(self) -> None:
        """Everything in the ledger is in MLflow afterwards, unless it is away."""
        self.away = False
        self._try(self._all)

    def answer(self, files: list[Path], metrics: Mapping[str, float], sentence: str) -> None:
        """The report's files into the run of kind `answer`."""
        self._try(lambda: self.mirror.answer(files, metrics, sentence))

    def _all(self) -> None:
        self._open()
        for training in self.ledger.trainings():
            if training["state"] in FINAL and not self._told(training["training"]):
                self._training(training)
        for trial in self.ledger.trials():
            self._trial(trial)
            if trial["state"] in FINAL:
                self._trial_end(trial)
        self._fronts()

    def _told(self, training: str) -> bool:
        return training in self.told or self.mirror.closed(training)

    def _trial(self, trial: Row) -> None:
        tags = {"arm": trial["arm"], "config": trial["config"]}
        self.mirror.trial(trial["trial"], trial["trial"], trial["words"], tags)

    def _trial_end(self, trial: Row) -> None:
        """Its curves, its values on val and, if it was confirmed, on test, all as means over seeds."""
        self._trial(trial)
        rows = [row for row in self.ledger.trainings(config=trial["config"]) if row["state"] == COMPLETE]
        search = [row for row in rows if row["stage"] in JUDGED]
        values = _means([row["metrics"] for row in search], list(NAMES))
        if trial["confirmed"]:
            confirm = [row["metrics"] for row in rows if row["stage"] == CONFIRM]
            values |= _means(confirm, [f"test/{name}" for name in NAMES])
        self.mirror.epochs(trial["trial"], self._curves(search))
        self.mirror.finish(trial["trial"], values, STATUS[trial["state"]], trial["reason"])

    def _curves(self, trainings: list[Row]) -> list[tuple[int, dict[str, float]]]:
        """The objectives epoch by epoch, where val was looked at: what the front's charts draw."""
        logs = [self._log(row).read() for row in trainings]
        epochs = sorted(set.intersection(*(set(log) for log in logs))) if logs else []
        return [(epoch, _means([log[epoch] for log in logs], list(self.plan.objectives))) for epoch in epochs]

    def _training(self, training: Row) -> None:
        """Its child run with all epochs so far, and its end."""
        for trial in self.ledger.trials(config=training["config"])[:1]:
            self._trial(trial)
            name = f"{trial['trial']} seed {training['seed']}"
            tags = {"arm": trial["arm"], "seed": str(training["seed"]), "stage": training["stage"]}
            self.mirror.training(training["training"], trial["trial"], name, tags)
            self.mirror.epochs(training["training"], list(self._log(training).read().items()))
            if training["state"] in FINAL:
                status = STATUS[training["state"]]
                self.mirror.finish(training["training"], training["metrics"] or {}, status, training["reason"])
                self.told.add(training["training"])

    def _log(self, training: Row) -> EpochLog:
        return EpochLog(self.plan.folder / "trainings" / training["training"] / "epochs.jsonl")

    def _fronts(self) -> None:
        self.mirror.mark_fronts(*front_trials(self.plan, self.ledger.trials()))

    def _try(self, action: Callable[[], object]) -> None:
        if self.away:
            return
        try:
            action()
        except UsageError:
            raise
        except Exception as error:  # whatever MLflow or its database throws must not stop a training
            self.away = True
            uri = self.plan.request.tracking_uri
            complaint = f"MLflow at {uri} is away; the study goes on, MLflow catches up later: {error}"
            self.say(masked(complaint))


def _means(rows: list[dict[str, float]], names: list[str]) -> dict[str, float]:
    if not rows:
        return {}
    return {name: sum(row[name] for row in rows) / len(rows) for name in names if all(name in row for row in rows)}
