"""The driver: lock, ledger, Ray Tune, and the tables at the end. Running it again continues."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from sqlalchemy.exc import OperationalError

from absld_search.core import files, rungs
from absld_search.core.config import TrialConfig
from absld_search.search import (
    cluster,
    interruption,
    ownership,
    processes,
    resources,
    sending,
    tables,
    wire,
)
from absld_search.search.inputs import Inputs
from absld_search.search.ledger import COMPLETE, FAILED, RUNNING, WAITING, Ledger, Row
from absld_search.search.mirroring import Mirroring
from absld_search.search.plan import Plan
from absld_search.search.progress import Progress
from absld_search.search.queue import Queue
from absld_search.search.ray_session import ray_session
from absld_search.search.reuse import Reuse
from absld_search.search.searcher import LedgerSearcher
from absld_search.search.sending import Fetching
from absld_search.search.tabling import Tabling
from absld_search.search.worker import train
from absld_search.words import Away, UsageError, counted, masked

DONE, FAILED_SOME, HELD, INTERRUPTED = 0, 3, ownership.HELD, interruption.INTERRUPTED  # exit codes
REPORTS_A_SECOND = 50  # of all trainings together: each costs the driver milliseconds, and decides nothing
REST_SECONDS = 300.0  # of a cluster's place that has lost a training; others may be better
CATCH_UP_SECONDS, CLOSING_SECONDS = 600.0, 5.0  # for MLflow at the end of a study, and of one that was interrupted


class Study:
    """One start of a study. Everything it knows is in the ledger."""

    def __init__(self, plan: Plan, lease: ownership.Lease, stop: interruption.Interruption) -> None:
        self.plan, self.lease, self.stop = plan, lease, stop
        self.ledger = Ledger(plan.request.storage, plan.request.study, lease.fence)
        if plan.request.forked_from:
            self.ledger.fact("forked_from", plan.request.forked_from)
        self.progress = Progress(plan, self.ledger)
        self.fetching = Fetching(plan, self.progress.say)
        self.mirroring = Mirroring(plan, self.ledger, self.progress.say, self.fetching.log)
        self.reuse = Reuse(plan, self.ledger, self.progress.say)
        self.tabling = Tabling(plan, self.ledger, self.progress.say)
        self.inputs = Inputs(plan, self.ledger, self.progress.say, self.progress.passing)
        self.inputs.unchanged()  # before anything of the study is: what is refused leaves it as it was
        if plan.request.retry_failed:
            self._retry()
        self.queue = Queue(plan, self.ledger)

    def run(self) -> int:
        """Do what is left; the exit code."""
        asks, more = self.queue.asks(), self.queue.ready()
        self.progress.resumed(more)
        for row in self.ledger.trainings(state=COMPLETE) if self.plan.request.store else ():
            self.fetching.training_done(row)  # an earlier driver's, on another machine
        if more:
            self.inputs.made_by(asks)
            tables.write_facts(self.plan, self.ledger)
            self.inputs.data()
            self.mirroring.open()
            if not cluster.is_joined(self.plan.request):
                self.inputs.teachers()
            with self.progress, ray_session(self.plan, self.lease.token, self.stop):
                self._tune()
            self.tabling.close()
        self._still_ours()
        self.queue.recall()  # what was stopped runs no more
        if not self._all_here():
            return INTERRUPTED
        self.write()
        self.mirroring.catch_up()
        states = {row["state"] for row in self.ledger.trainings()}
        if states & {WAITING, RUNNING}:
            return INTERRUPTED
        tables.write_facts(self.plan, self.ledger, ended=True)
        return FAILED_SOME if FAILED in states else DONE

    def _all_here(self) -> bool:
        """Whether every finished training could be fetched from the store, if there is one."""
        try:
            for row in self.ledger.trainings(state=COMPLETE) if self.plan.request.store else ():
                self.fetching.fetch(row)
        except OSError as error:
            self.progress.say(f"the store is away ({error}): run the same command again when it is back")
            return False
        return True

    def _still_ours(self) -> None:
        """Raises: LeaseLost."""
        if self.lease.lost:
            raise ownership.LeaseLost(self.lease.lost)

    def write(self) -> None:
        """`study.json` and `results/*.parquet`; a training whose stored results are gone is queued again."""
        for key in tables.write(self.plan, self.ledger):
            self.progress.say(f"the stored results of training {key} are damaged: it will be trained again")
            self._anew(key)

    def _anew(self, training: str) -> None:
        """It waits again, with nothing left of what its attempts had made."""
        self._remove(training)
        self.ledger.finish_training(training, state=WAITING, reason="", metrics=None, losses=0)

    def _remove(self, training: str) -> None:
        shutil.rmtree(self.plan.folder / "trainings" / training, ignore_errors=True)
        self.fetching.forget(training)

    def _retry(self) -> None:
        """What has failed waits again. Trials first: a kill between leaves trials that wait for failed trainings, which
        the next start settles."""
        failed = self.ledger.trainings(state=FAILED)
        for trial in self.ledger.trials(state=FAILED):
            self.ledger.finish_trial(trial["trial"], state=WAITING, reason="")
        done = {row["training"] for row in self.ledger.trainings(state=COMPLETE)}
        for row in failed:
            trunk = rungs.whole_of(TrialConfig.from_dict(row["job"])).key
            if trunk not in done:  # a branch would go on from what the fault has made
                self._remove(trunk)
            self._anew(row["training"])
        self.progress.say(f"{counted(len(failed), 'failed training')} to be trained anew")

    def publish(self, report: Path | None, description: str) -> None:
        """The report's files into MLflow, its Markdown as the description; a last chance to hear of everything.

        `report`: None where none could be written.
        """
        self.fetching.publish("results", *(["report"] if report else []))
        self.mirroring.answer(sorted(report.iterdir()) if report else [], {}, description)
        left = any(row["state"] in (WAITING, RUNNING) for row in self.ledger.trainings())
        self.mirroring.close(CLOSING_SECONDS if left else CATCH_UP_SECONDS)

    def closing(self, code: int, written: bool) -> str:
        """Where to look next; `written`: whether there is a report."""
        lines = [f"report  {self.plan.folder / 'report' / 'index.html'}"] if written else []
        request = self.plan.request  # under its name in MLflow, where another study may have been first
        lines += [f"front   {request.show.removesuffix(request.study)}{self.mirroring.mirror.experiment}"]
        if code == INTERRUPTED:
            lines += [*self._lost(), f"{self.queue.paused or 'interrupted'}: run the same command again to continue"]
        if code == FAILED_SOME:
            lines += ["failed trainings are kept as they are; with --retry-failed the same command trains them anew"]
        return "\n".join(lines)

    def _lost(self) -> list[str]:
        lost = [row for row in self.ledger.trainings(state=WAITING) if row["training"] in self.queue.given_up()]
        return [f"training {row['training']} is not finished: {row['reason']}" for row in lost]

    def _tune(self) -> None:
        """Let Ray Tune train what the queue hands out; where Ray breaks, what was finished is kept."""
        try:
            if cluster.is_joined(self.plan.request):
                self.inputs.of_machines()
            self._fit()
        except UsageError as error:  # of another machine too, which Ray dresses up
            raise UsageError(str(getattr(error, "cause", error))) from None
        except (ray.exceptions.RayError, ray.tune.TuneError, ConnectionError) as error:
            if why_stopped(error):
                raise
            self.progress.say(f"Ray stopped: {error}")

    def _fit(self) -> None:
        request = self.plan.request
        # Tune's own state and logs are never read, and cost more with every trial.
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        scratch = self.plan.folder.absolute() / "ray"
        shutil.rmtree(scratch, ignore_errors=True)
        bundles = resources.bundles(request)
        where = {"trainings": str(self.plan.folder.absolute() / "trainings"), "folders": asdict(self.plan.folders)}
        how: dict[str, Any] = {
            "deterministic": request.deterministic,
            "store": (request.store, sending.place(self.plan)),
        }
        slots = resources.at_a_time(request, cluster.nodes())
        pace = {
            "report_seconds": slots / REPORTS_A_SECOND,
            "rest_seconds": REST_SECONDS if cluster.is_joined(request) else 0.0,
        }
        how["teachers"] = {name: facts["sha256"] for name, facts in self.ledger.facts("teacher:").items()}
        trainable = tune.with_parameters(wire.carried(train), bundles=bundles, **pace, **how, **where)
        tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory(bundles, strategy="PACK")),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(
                    self.queue,
                    Both(self.fetching, self.progress, self.mirroring, self.reuse, self.tabling),
                    self.progress.say,
                ),
                num_samples=-1,
                max_concurrent_trials=slots,
                trial_dirname_creator=_short_name,
                reuse_actors=request.gpus_per_trial == 0,  # a process that stays keeps its GPU memory too
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),  # the queue tries again, and counts it
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
def held(plan: Plan) -> Iterator[Study]:
    """The study, for this driver alone, and its files for this user alone. Raises: ownership.Held."""
    umask, token = os.umask(0o077), list[ownership.Lease]()

    def clean_up() -> None:
        for lease in token:  # the lease of a dead driver can be taken over; its processes would live on
            processes.kill_marked(lease.token, seconds=2)
            lease.release()

    try:
        with interruption.Interruption(clean_up) as stop:
            request = plan.request
            on_lost = partial(os.kill, os.getpid(), signal.SIGTERM)
            with ownership.held(request.storage, request.study, plan.folder, on_lost) as lease:
                token.append(lease)
                yield Study(plan, lease, stop)
    finally:
        os.umask(umask)


def why_stopped(error: BaseException | None) -> str | None:
    """What a person is told of an error that ends a run and harms nothing; None: it is a fault of the program."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    for found in chain:
        if isinstance(found, KeyboardInterrupt):  # amid an import Python dresses it up as another error
            return "interrupted"
        if isinstance(found, ownership.LeaseLost | Away):
            return str(found)
        if files.is_full(found):
            return f"the disk is full ({str(found).splitlines()[0]}); the last whole checkpoints are kept"
    for found in chain:
        if isinstance(found, OperationalError):
            return masked(f"the study's database cannot be used: {str(found.orig or found).splitlines()[0]}")
    return None
