"""Thousands of simulated trials through the real driver: `python -m benchmarks.scaling --trials 10000 --slots 64`.

The driver is the command's own: lease, ledger, Optuna, the queue, the line of progress, Ray Tune; only the training is
`benchmarks.simulate`'s. `--through queue` leaves Ray Tune out and keeps the slots filled by itself, which shows what is
the study's own and what is Ray's. A slot is a share of this machine's cores, which Ray only counts.

Each run is kept in docs/results/scaling and shown in docs/scaling.md; with `--out` in another folder, and not shown.
Reported: CPU of the driver's process for each training, by thousands; the median and the 99th percentile of handing
out a training (ask) and of taking in its end (tell); the database's size; the most memory that the driver held.
`--postgres` starts a server of its own (Debian's package) and ends it.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import sqlalchemy as sa

from absld_search.search import resources, wire
from absld_search.search import study as studies
from absld_search.search.database import connect
from absld_search.search.ledger import COMPLETE, Row, sqlite_url
from absld_search.search.plan import Plan, Request, resolve
from absld_search.search.ray_session import ray_session
from absld_search.search.searcher import LedgerSearcher
from absld_search.search.study import Both, Study
from absld_search.space import LogUniform, SearchSpace
from benchmarks import scaling_page
from benchmarks.simulate import pretend

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={"one": {}},
    tuned={"temperature_lr": LogUniform(1e-2, 1.0), "initial_temperature_adv": LogUniform(0.5, 2.0)},
)


class Meter:
    """Seconds of each ask and tell, and the driver's CPU at every thousandth end."""

    def __init__(self, study: Study, every: int) -> None:
        self.asks: list[float] = []
        self.tells: list[float] = []
        self.every, self.at, self.marks = every, time.process_time(), list[dict[str, float]]()
        self.url, queue = study.plan.request.storage, study.queue
        queue.take = self._timed(queue.take, self.asks)  # type: ignore[method-assign]
        queue.done = self._timed(queue.done, self.tells)  # type: ignore[method-assign]

    def _timed(self, call: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
        def timed(*words: Any, **more: Any) -> Any:
            began = time.perf_counter()
            found = call(*words, **more)
            if found is not None:  # Tune also asks, thousands of times, while there is nothing to be had
                into.append(time.perf_counter() - began)
            if into is self.tells and len(into) % self.every == 0:
                self._mark()
            return found

        return timed

    def _mark(self) -> None:
        """A line about the last `every` trainings, so that growth is seen, and seen early."""
        cpu = 1e3 * (time.process_time() - self.at) / self.every
        facts = {"ended": len(self.tells), "cpu_ms": round(cpu, 1), **self.percentiles(self.every)}
        facts |= {"database_mb": round(size(self.url), 1), "memory_mb": round(memory())}
        self.marks.append(facts)
        click.echo(json.dumps(facts), err=True)
        self.at = time.process_time()  # what this line cost is not the driver's

    def percentiles(self, last: int = 0) -> dict[str, float]:
        """Of the wall-clock milliseconds of the `last` asks and tells, or of all."""
        return {
            f"{name}_p{q}_ms": round(1e3 * float(np.percentile(values[-last:], q)), 1)
            for name, values in (("ask", self.asks), ("tell", self.tells))
            for q in (50, 99)
        }


def planned(out: Path, storage: str, trials: int, slots: int, sampler: str) -> Plan:
    """A study of one arm on digits whose slots are shares of this machine's cores."""
    (out / "study").mkdir(parents=True, exist_ok=True)
    asked = Request(
        "scaling", "How far?", "digits-smoke", "study", out, storage or sqlite_url(out / "study" / "study.db"),
        tracking_uri=sqlite_url(out / "mlflow.db"), trials=trials, seeds=1, sampler=sampler,
        cpus_per_trial=resources.cores() / slots,
    )  # fmt: skip
    return resolve(asked, SPACE)


def through_queue(study: Study, slots: int) -> None:
    """The searcher and the observers, with `slots` trainings at a time that end in the order in which they began."""
    searcher = LedgerSearcher(study.queue, Both(study.progress, study.reuse), study.progress.say)
    running: deque[tuple[str, Mapping[str, Any]]] = deque()
    number = 0
    while True:
        while len(running) < slots and isinstance(found := searcher.suggest(str(number)), dict):
            running.append((str(number), found))
            number += 1
        if not running:
            return
        name, row = running.popleft()
        final = pretend(wire.unpacked(row)["job"])
        searcher.on_trial_complete(name, wire.packed(final=final, epochs=1, seconds=0.0))


def through_ray(study: Study, epochs: int, seconds: float, table: Path | None, hold: float) -> None:
    """As `Study.run`, from the point where data and teachers are there. `hold`: nothing ends in the first seconds."""
    from benchmarks.simulate import simulated

    studies.train = partial(simulated, epochs=epochs, seconds=seconds, table=table, until=time.time() + hold)
    study.mirroring = Silent()  # type: ignore[assignment]
    with ray_session(study.plan, study.lease.token, study.stop):
        study._tune()


class Silent:
    """In the place of the MLflow mirror, a thread that nothing waits for; `benchmarks.mirror` measures it."""

    def started(self, training: Row) -> None: ...
    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None: ...
    def training_done(self, training: Row) -> None: ...
    def trial_done(self, trial: Row) -> None: ...


def size(url: str) -> float:
    """The database's, MB."""
    with connect(url).connect() as connection:
        if connection.dialect.name == "postgresql":
            return float(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()) / 1e6
    return Path(sa.make_url(url).database or "").stat().st_size / 1e6


@contextmanager
def storage(postgres: bool, folder: Path) -> Iterator[str]:
    if not postgres:
        yield ""
        return
    from tests.cluster.postgres import server, why_not

    if reason := why_not():
        raise click.ClickException(f"--postgres: {reason}")
    with server(folder) as url:
        yield url


@click.command()
@click.option("--trials", default=1000, show_default=True)
@click.option("--slots", default=64, show_default=True)
@click.option("--sampler", default="random", show_default=True)
@click.option("--through", type=click.Choice(["queue", "ray"]), default="ray", show_default=True)
@click.option("--postgres", is_flag=True, help="A PostgreSQL of its own instead of SQLite.")
@click.option("--epochs", default=1, show_default=True, help="Reports of each made-up training.")
@click.option("--seconds", default=0.0, show_default=True, help="Sleep of each epoch.")
@click.option(
    "--hold",
    default=0.0,
    show_default=True,
    help="Seconds until the first trainings begin, so that all workers have started: Tune gives a waiting trial to who "
    "is free, and ends the process that was being started for it.",
)
@click.option("--curves", type=click.Path(path_type=Path, exists=True), help="A table of recorded curves to replay.")
@click.option("--out", type=click.Path(path_type=Path), default=scaling_page.RESULTS, help="Where its JSON goes.")
@click.option("--every", default=1000, show_default=True, help="Trainings between two looks at the CPU.")
def main(
    trials: int, slots: int, sampler: str, through: str, postgres: bool, epochs: int, seconds: float, hold: float,
    curves: Path | None, out: Path, every: int,
) -> None:  # fmt: skip
    """Drive one study, print one line of JSON and keep it."""
    with tempfile.TemporaryDirectory() as folder, storage(postgres, Path(folder)) as url:
        made = planned(Path(folder) / "out", url, trials, slots, sampler)
        before, began, cpu = memory(), time.perf_counter(), time.process_time()
        with studies.held(made) as study:
            study.progress.say = lambda line: None  # type: ignore[method-assign]
            meter = Meter(study, every)
            if through == "ray":
                through_ray(study, epochs, seconds, curves, hold)
            else:
                through_queue(study, slots)
            states = {row["state"] for row in study.ledger.trainings()}
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
            facts = {"trials": trials, "slots": slots, "sampler": sampler, "through": through, "states": sorted(states)}
            facts |= {"database": study.ledger.engine.dialect.name, "epochs": epochs, "asks": len(meter.asks)}
            facts |= {"sleep": seconds, "hold": hold}
            facts |= meter.percentiles()
            facts |= {"seconds": round(wall, 1), "cpu_each_ms": round(1e3 * spent / len(meter.tells), 2)}
            facts |= {"database_mb": round(size(made.request.storage), 1), "memory_mb": round(memory() - before)}
        click.echo(json.dumps(facts))
        scaling_page.write(out, {**facts, "marks": meter.marks})
        assert states == {COMPLETE}, f"trainings are {', '.join(sorted(states))}"


def memory() -> float:
    """The most that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
