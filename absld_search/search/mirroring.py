"""Keeps the MLflow mirror true to the ledger. MLflow may be away, slow or hang: nothing of the study waits for it.

The driver only notes what has changed; a thread reads it from the ledger and the trainings' epoch logs, and repeats it
to MLflow until it has arrived. So the spool is what is on disk anyway, and whatever MLflow has not heard when the
process ends, the next start of the study tells it: the same command again, also of a study that is done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal

from filelock import FileLock

from absld_search.core.attack_names import KINDS, of_test
from absld_search.core.metrics import NAMES, tail_objective
from absld_search.core.records import EpochLog
from absld_search.search import notes
from absld_search.search.background import Background
from absld_search.search.choices import front_trials
from absld_search.search.ledger import COMPLETE, FAILED, FINAL, INFEASIBLE, STOPPED, Ledger, Row
from absld_search.search.mlflow_view import SIDES, Shown, class_accuracy, temperature
from absld_search.search.plan import Plan
from absld_search.search.queue import CONFIRM, JUDGED
from absld_search.search.tracking import CONFIRMED, Mirror
from absld_search.words import Away, UsageError, masked

FLUSH_SECONDS = 15.0  # between looks at a running training's epochs
OPEN_SECONDS = 5.0  # for which a start waits to hear that its experiment was deleted
LOCK_SECONDS = 60.0
FRONTS_SHARE = 20  # a look at all trials takes no more than one twentieth of the time
MOMENT = 0.02  # seconds; what takes no longer may be done at every end of a trial
BUNDLED_BYTES = 64 * 1024**2  # of one file; larger ones stay in the study's folder alone
STATUS: dict[str, Literal["FINISHED", "FAILED"]] = {
    **dict.fromkeys((COMPLETE, STOPPED, INFEASIBLE), "FINISHED"), FAILED: "FAILED",
}  # fmt: skip
JUDGED_TRIALS = (COMPLETE, INFEASIBLE)  # those trained to their end
Rows = list[tuple[int, dict[str, float]]]


class Mirroring:
    """An observer that repeats the ledger to MLflow, in the background."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        say: Callable[[str], None],
        fetch: Callable[[str], None] = lambda training: None,
    ) -> None:
        """`fetch` brings a training's epoch log, which another machine may write, into the study's folder."""
        self.plan, self.ledger, self.say, self.fetch = plan, ledger, say, fetch
        tuned = sorted({name for arm in plan.arms for name in arm.tuned})
        artifacts = plan.folder.absolute() / "mlflow-artifacts"
        identity = ledger.fact("identity", uuid.uuid4().hex)
        request = plan.request
        self.kind = KINDS[of_test(plan.setting.dataset, request.device)[-1]]
        test = [tail_objective(plan.num_classes, self.kind), f"worst_class_{self.kind}_accuracy"]
        test += [f"{self.kind}_accuracy", "clean_accuracy"]
        shown = Shown(plan.objectives, tuned, plan.num_classes, self.kind, test)
        arms = [arm.name for arm in plan.arms]
        self.mirror = Mirror(
            request.tracking_uri, request.study, artifacts, shown, identity, arms, request.question
        )  # fmt: skip
        self.sent: dict[str, float] = {}  # running training -> when its epochs were last sent
        self.background = Background(self._failed, self._told)
        self.opening = self.opened = self.away = False
        self.fronts_due, self.fronts_old = 0.0, False  # when all trials may be read again; whether they should be

    def open(self) -> None:
        """Make or find the experiment, and begin to tell what earlier starts could not.

        Raises: UsageError where the experiment was deleted, for only a person knows what to do.
        """
        self.opening = True
        self.catch_up()
        error = self.background.wait("everything", OPEN_SECONDS)
        self.opening = False
        if isinstance(error, UsageError):
            raise error

    def started(self, training: Row) -> None:
        self.sent[training["training"]] = time.monotonic()

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None:
        if time.monotonic() - self.sent.get(training, 0.0) >= FLUSH_SECONDS:
            self.sent[training] = time.monotonic()
            self._ask_training(training)

    def training_done(self, training: Row) -> None:
        self.sent.pop(training["training"], None)
        self._ask_training(training["training"])

    def trial_done(self, trial: Row) -> None:
        self._ask_trial(trial["trial"])
        self.fronts_old = True
        if time.monotonic() >= self.fronts_due:
            self._ask_fronts()

    def catch_up(self) -> None:
        """Have everything in the ledger that MLflow lacks told to it."""
        self._ask("everything", self._everything)

    def answer(self, files: list[Path], metrics: Mapping[str, float], sentence: str) -> None:
        """The report's files into the run of kind `answer`."""
        bundle = [path for path in _bundle(self.plan.folder) if path.stat().st_size <= BUNDLED_BYTES]
        self._ask("answer", lambda: self.mirror.answer(files, metrics, sentence, bundle))

    def close(self, seconds: float) -> bool:
        """Wait until MLflow is up to date, at most `seconds`, and not for a server that is away; whether it is.
        Nothing is told afterwards."""
        if self.fronts_old:
            self._ask_fronts()
        done = self.background.drain(seconds)
        self.background.stop()
        if not done:
            self.say(f"{self._name()} is not up to date; the next start of the study (the same command) sees to it")
        return done

    def _ask(self, key: str, action: Callable[[], object]) -> None:
        def task() -> None:
            self._open()
            action()

        self.background.ask(key, task)

    def _ask_training(self, key: str) -> None:
        self._ask(f"training {key}", lambda: self._training(key))

    def _ask_trial(self, name: str) -> None:
        self._ask(f"trial {name}", lambda: self._trial_end(name))

    def _open(self) -> None:
        if self.opened:
            return
        # MLflow makes its database without a lock: of two studies that start at once, one would die.
        with FileLock(self.plan.request.out / "mlflow.lock", timeout=LOCK_SECONDS):
            try:
                self.mirror.open()
            except ValueError as error:
                raise UsageError(masked(str(error))) from None
        self.opened = True

    def _everything(self) -> None:
        self.mirror.look_again()
        for training in self.ledger.trainings():
            if training["state"] in FINAL and not self._has_heard(training["training"], training):
                self._ask_training(training["training"])
        for trial in self.ledger.trials():
            if trial["state"] not in FINAL or not self._has_heard(trial["trial"], trial, self._values(trial)):
                self._ask_trial(trial["trial"])
        self._ask_fronts()

    def _has_heard(self, key: str, row: Row, values: Mapping[str, float] | None = None) -> bool:
        told = row["metrics"] or {} if values is None else values
        return self.mirror.knows(key, told, STATUS[row["state"]])

    def _run(self, trial: Row) -> None:
        tags = {"arm": trial["arm"], "config": trial["config"]}
        self.mirror.trial(trial["trial"], trial["trial"], trial["words"], tags)

    def _trial_end(self, name: str) -> None:
        """Its curves, its values on val and, if it was confirmed, on test, all as means over seeds."""
        (trial,) = self.ledger.trials(trial=name)
        self._run(trial)
        if trial["state"] in JUDGED_TRIALS:
            self.mirror.epochs(name, *self._curves(self._complete(trial, JUDGED), list(self.plan.objectives)))
        if self._is_confirmed(trial):
            self.mirror.epochs(name, *self._curves(self._complete(trial, [CONFIRM]), self._temperatures()))
        if trial["state"] in FINAL:
            values = self._values(trial)
            objectives = {key: values[key] for key in self.plan.objectives if key in values}
            note = notes.of_trial(trial["arm"], trial["params"], objectives, trial["reason"])
            tags = {notes.NOTE: note, **({CONFIRMED: "true"} if trial["confirmed"] else {})}
            self.mirror.finish(name, values, STATUS[trial["state"]], trial["reason"], tags)

    def _complete(self, trial: Row, stages: Collection[str]) -> list[Row]:
        rows = self.ledger.trainings(config=trial["config"], state=COMPLETE)
        return [row for row in rows if row["stage"] in stages]

    def _values(self, trial: Row) -> dict[str, float]:
        if trial["state"] not in JUDGED_TRIALS:
            return {}  # the mean over the seeds that survived would flatter; on a rung, none is like the others'
        values = _means([row["metrics"] for row in self._complete(trial, JUDGED)], list(NAMES))
        if trial["confirmed"]:
            rows = self._complete(trial, [CONFIRM])
            values |= _means([row["metrics"] for row in rows], [f"test/{name}" for name in NAMES])
            ends = [log[max(log)] for row in rows if (log := self._log(row["training"]).read())]
            values |= _means(ends, [class_accuracy(self.kind, index) for index in range(self.plan.num_classes)])
        return values

    def _is_confirmed(self, trial: Row) -> bool:
        """Whether its confirm trainings have all ended: MLflow keeps a point, so a mean of some would stay."""
        rows = self.ledger.trainings(config=trial["config"], stage=CONFIRM)
        return len(rows) >= len(self.plan.confirm_seeds) and all(row["state"] in FINAL for row in rows)

    def _temperatures(self) -> list[str]:
        return [temperature(side, index) for side in SIDES for index in range(self.plan.num_classes)]

    def _curves(self, trainings: list[Row], names: list[str]) -> tuple[Rows, dict[int, int]]:
        """Means over trainings, epoch by epoch, of the metrics that all of them have then; and when that was."""
        files = [self._log(row["training"]) for row in trainings]
        logs, times = [file.read() for file in files], [file.times() for file in files]
        epochs = sorted(set.intersection(*(set(log) for log in logs))) if logs else []
        means = [(epoch, _means([log[epoch] for log in logs], names)) for epoch in epochs]
        return means, {epoch: max(time.get(epoch, 0) for time in times) for epoch in epochs}

    def _training(self, key: str) -> None:
        """Its child run with all epochs so far, and its end."""
        (training,) = self.ledger.trainings(training=key)
        for trial in self.ledger.trials(config=training["config"])[:1]:
            self._run(trial)
            name = f"{trial['trial']} seed {training['seed']}"
            tags = {"arm": trial["arm"], "seed": str(training["seed"]), "stage": training["stage"]}
            self.mirror.training(key, trial["trial"], name, tags)
            log = self._log(key)
            self.mirror.epochs(key, list(log.read().items()), log.times())
            if training["state"] in FINAL:
                status = STATUS[training["state"]]
                self.mirror.finish(key, training["metrics"] or {}, status, training["reason"])
        if training["stage"] == CONFIRM:
            for trial in self.ledger.trials(config=training["config"], confirmed=True):
                self._ask_trial(trial["trial"])  # its means on test have changed

    def _log(self, training: str) -> EpochLog:
        """Raises: Away, where it lies in a store that is: then this task is tried again, and no end comes before its
        curve, for what has ended is not asked for again."""
        self.fetch(training)
        return EpochLog(self.plan.folder / "trainings" / training / "epochs.jsonl")

    def _ask_fronts(self) -> None:
        self.fronts_old = False
        self._ask("fronts", self._fronts)

    def _fronts(self) -> None:
        began = time.monotonic()
        found = front_trials(self.plan, self.ledger.trials())
        now = time.monotonic()
        if now - began > MOMENT:  # of thousands of trials: the driver's own thread waits for this one
            self.fronts_due = now + FRONTS_SHARE * (now - began)
        self.mirror.mark_fronts(*found)

    def _failed(self, error: Exception) -> None:
        if not self.away and not (self.opening and isinstance(error, UsageError)):  # which `open` raises
            self.away = True
            what, why = (error, "") if isinstance(error, Away) else (f"{self._name()} is away", f": {error}")
            self.say(masked(f"{what}; the study goes on, MLflow catches up later{why}"))

    def _told(self) -> None:
        if self.away:
            self.away = False
            self.say(f"{self._name()} answers again and is up to date")

    def _name(self) -> str:
        return masked(f"MLflow at {self.plan.request.tracking_uri}")


def _bundle(folder: Path) -> list[Path]:
    """What an answer can be recomputed from."""
    return [path for path in (folder / "study.json", *sorted(folder.glob("results/*.parquet"))) if path.is_file()]


def _means(rows: list[dict[str, float]], names: list[str]) -> dict[str, float]:
    if not rows:
        return {}
    return {name: sum(row[name] for row in rows) / len(rows) for name in names if all(name in row for row in rows)}
