"""The driver: lock, ledger, Ray Tune, and the tables at the end. Running it again continues."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray import tune

from absld_search.core import data, results, teachers
from absld_search.core.files import cache_folder
from absld_search.core.teacher_making import ensure_teacher
from absld_search.search import tables
from absld_search.search.ledger import FAILED, RUNNING, WAITING, Ledger, Row, as_json
from absld_search.search.mirroring import Mirroring
from absld_search.search.plan import Plan
from absld_search.search.progress import Progress
from absld_search.search.queue import Queue
from absld_search.search.reuse import Reuse
from absld_search.search.searcher import LedgerSearcher
from absld_search.search.worker import train
from absld_search.words import UsageError

DONE, FAILED_SOME, HELD, INTERRUPTED = 0, 3, 4, 75  # exit codes
RETRIES = 2  # of a training whose worker died


class Held(RuntimeError):
    """Another driver holds the study."""


class Study:
    """One start of a study. Everything it knows is in the ledger."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ledger = Ledger(plan.request.storage, plan.request.study)
        self.progress = Progress(plan, self.ledger)
        self.mirroring = Mirroring(plan, self.ledger, self.progress.say)
        self.reuse = Reuse(plan, self.ledger, self.progress.say)
        self.queue = Queue(plan, self.ledger)

    def run(self) -> int:
        """Do what is left; the exit code."""
        if self.queue.ready():
            self._data()
            self.mirroring.open()
            self._teachers()
            with self.progress, ray_session(self.plan):
                self._tune()
        self.write()
        self.mirroring.catch_up()
        states = {row["state"] for row in self.ledger.trainings()}
        if states & {WAITING, RUNNING}:
            return INTERRUPTED
        return FAILED_SOME if FAILED in states else DONE

    def write(self) -> None:
        """`study.json` and `results/*.parquet`; a training whose stored results are gone is queued again."""
        for key in tables.write(self.plan, self.ledger):
            self.progress.say(f"the stored results of training {key} are damaged: it will be trained again")
            shutil.rmtree(self.plan.folder / "trainings" / key, ignore_errors=True)
            self.ledger.finish_training(key, state=WAITING, reason="", metrics=None)

    def publish(self, report: Path, answer: Any) -> None:
        """The report's files and numbers into MLflow."""
        self.mirroring.answer(sorted(report.iterdir()), {}, answer.sentence)

    def closing(self, code: int) -> str:
        """Where to look next."""
        lines = [f"report  {self.plan.folder / 'report' / 'index.html'}"]
        lines += [f"front   {self.plan.request.show}"]
        if code == INTERRUPTED:
            lines += ["interrupted: run the same command again to continue"]
        return "\n".join(lines)

    def _data(self) -> None:
        """The data are decoded before Ray starts, and are those that the study began with."""
        setting, where = self.plan.setting, self.plan.folders.data
        found = data.facts(setting.dataset, setting.split, where)
        stored = self.ledger.fact("data", found)
        if stored != as_json(found):
            raise UsageError(
                f"--data-dir: the data differ from those that study {self.plan.request.study!r} began with."
            )
        for line in data.counted(setting.dataset, setting.split, where):
            self.progress.say(line)

    def _teachers(self) -> None:
        """Make or measure every teacher before Ray starts, so that no worker waits for another's."""
        for name in self.plan.teachers():
            file = ensure_teacher(
                self.plan.setting, name, self.plan.request.device, self.progress.say, self.plan.folders
            )
            found = teachers.facts(file)
            stored = self.ledger.fact(f"teacher:{name}", found)
            if stored["sha256"] != found["sha256"]:
                raise UsageError(
                    f"teacher {name} is another than the one that study {self.plan.request.study!r} began with."
                )

    def _tune(self) -> None:
        """Let Ray Tune train what the queue hands out; where Ray breaks, what was finished is kept."""
        try:
            self._fit()
        except (ray.exceptions.RayError, ray.tune.TuneError, ConnectionError) as error:
            self.progress.say(f"Ray stopped: {error}")

    def _fit(self) -> None:
        request = self.plan.request
        scratch = self.plan.folder.absolute() / "ray"
        shutil.rmtree(scratch, ignore_errors=True)  # Tune's own state is never read back
        resources = {"cpu": request.cpus_per_trial, "gpu": request.gpus_per_trial}
        where = {"trainings": str(self.plan.folder.absolute() / "trainings"), "folders": asdict(self.plan.folders)}
        trainable = tune.with_parameters(train, **where)
        tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(self.queue, Both(self.progress, self.mirroring, self.reuse)),
                num_samples=-1,
                max_concurrent_trials=request.max_concurrent,
                trial_dirname_creator=_short_name,
                reuse_actors=request.gpus_per_trial == 0,  # a process that stays keeps its GPU memory too
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
        shutil.rmtree(scratch, ignore_errors=True)


def _short_name(trial: Any) -> str:
    """Tune would put the whole configuration into a folder's name."""
    return str(trial.trial_id)


class Both:
    """Two observers as one."""

    def __init__(self, *observers: Any) -> None:
        self.observers = observers

    def started(self, training: Row) -> None:
        for observer in self.observers:
            observer.started(training)

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None:
        for observer in self.observers:
            observer.epoch(training, number, metrics)

    def training_done(self, training: Row) -> None:
        for observer in self.observers:
            observer.training_done(training)

    def trial_done(self, trial: Row) -> None:
        for observer in self.observers:
            observer.trial_done(trial)


@contextmanager
def held(plan: Plan) -> Iterator[None]:
    """The study, for this driver alone, and its files for this user alone. Raises: Held, naming who has it."""
    umask, before = os.umask(0o077), signal.signal(signal.SIGTERM, _interrupt)
    plan.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    note = plan.folder / "driver.json"
    try:
        with FileLock(plan.folder / "driver.lock", timeout=0):
            results.write_json(note, {"pid": os.getpid(), "host": socket.gethostname()})
            try:
                yield
            finally:
                note.unlink(missing_ok=True)
    except Timeout:
        raise Held(f"study {plan.request.study!r} is held by another driver: {_read(note)}") from None
    finally:
        os.umask(umask)
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    """A SIGTERM outside Ray's own loop is a Ctrl-C."""
    raise KeyboardInterrupt


def _read(note: Path) -> str:
    with suppress(OSError, ValueError, KeyError):
        holder = json.loads(note.read_text())
        return f"process {holder['pid']} on {holder['host']}"
    return "nobody knows which"


@contextmanager
def ray_session(plan: Plan) -> Iterator[None]:
    """A local Ray, or a place in the cluster at `--address`. SIGTERM ends a run as Ctrl-C does."""
    if ray.is_initialized():  # whoever started it in this process ends it: several studies one after the other
        yield
        return
    # Workers start in folders of their own, where a relative path would be another place.
    os.environ["ABSLD_CACHE_DIR"] = str(cache_folder().absolute())
    # "local": without a word Ray joins whatever cluster somebody started on this machine.
    address = plan.request.address or "local"
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except ConnectionError as error:
        raise UsageError(f"--address {address}: {error}") from None
    # Tune ends cleanly on SIGINT and SIGUSR1 but aborts on SIGTERM; Ray sets its handlers in init.
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        _check_resources(plan, ray.cluster_resources())
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        ray.shutdown()


def _check_resources(plan: Plan, there: Mapping[str, float]) -> None:
    """Tune waits for ever for resources that do not exist."""
    for flag, name, asked in (
        ("--cpus-per-trial", "CPU", plan.request.cpus_per_trial),
        ("--gpus-per-trial", "GPU", plan.request.gpus_per_trial),
    ):
        if asked > there.get(name, 0):
            raise UsageError(f"{flag} {asked:g}: Ray sees {there.get(name, 0):g} {name}s.")
