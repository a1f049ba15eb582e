"""What the driver itself costs: trials that train nothing, through the queue, then through Ray as well.

    python -m benchmarks.driver [--short]

CPU seconds of the driver's process for each trial, and how much its memory grows. "queue": the ledger in SQLite,
Optuna's TPE sampler and the queue, in this process. "Ray": the whole driver as `run` starts it, with Ray Tune and the
MLflow mirror, whose trainings return at once. Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absld_search.core.metrics import NAMES
from absld_search.search import study as studies
from absld_search.search.ledger import Ledger, sqlite_url
from absld_search.search.plan import Plan, Request, resolve
from absld_search.search.queue import Queue
from absld_search.search.ray_session import ray_session
from absld_search.space import LogUniform, SearchSpace
from benchmarks import timing
from benchmarks.options import options

SPACE = SearchSpace(
    fixed={"method": "absld"}, arms={"dual": {"coupling": "dual"}}, tuned={"temperature_lr": LogUniform(1e-2, 1.0)}
)


def plan(out: Path, trials: int) -> Plan:
    """A study of one arm on digits, as small as a training can be."""
    (out / "study").mkdir(parents=True, exist_ok=True)
    asked = Request(
        "driver", "What does the driver cost?", "digits-smoke", "study", out, trials=trials, seeds=1,
        storage=sqlite_url(out / "study" / "study.db"), tracking_uri=sqlite_url(out / "mlflow.db"),
    )  # fmt: skip
    return resolve(asked, SPACE)


def pretend(rate: float) -> dict[str, float]:
    """Metrics as a function of what is tuned."""
    values = dict.fromkeys([*NAMES, *(f"test/{name}" for name in NAMES)], 0.5)
    return values | {
        "worst_class_robust_accuracy": 0.4 - abs(math.log10(rate) + 1) / 10,
        "robust_accuracy": 0.7 - rate / 10,
    }


def nothing(job: dict[str, Any], **_: Any) -> dict[str, Any]:
    """In the place of a training."""
    return {"final": pretend(job["job"]["hyperparameters"]["temperature_lr"]), "epochs": 2, "seconds": 0.0}


def through_queue(made: Plan) -> None:
    queue = Queue(made, Ledger(made.request.storage, made.request.study))
    while (row := queue.take()) is not None:
        queue.done(row["training"], nothing(row)["final"], "", epochs=2, seconds=0.0)


def through_ray(made: Plan) -> None:
    from benchmarks.driver import nothing as importable  # this file is `__main__` here, which workers cannot import

    studies.train = importable  # type: ignore[assignment]
    with studies.held(made) as study:
        study.mirroring.open()
        with ray_session(made, study.lease.token, study.stop):
            study._tune()
    for row in study.ledger.trainings():
        assert row["state"] == "COMPLETE", row["reason"]


def measured(way: str, trials: int, answer: Any) -> None:
    """(CPU seconds, wall-clock seconds, growth in MB) of a study of so many trials."""
    with tempfile.TemporaryDirectory() as out:
        through_queue(plan(Path(out) / "warm", 3))
        made = plan(Path(out) / "study", trials)
        before, cpu, wall = memory(), time.process_time(), time.perf_counter()
        {"queue": through_queue, "Ray": through_ray}[way](made)
        answer.put((time.process_time() - cpu, time.perf_counter() - wall, memory() - before))


def memory() -> float:
    """The most that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    return options(__doc__, words=words)


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    sizes = (
        [("queue", 100), ("Ray", 20)] if told.short else [("queue", 100), ("queue", 1000), ("Ray", 100), ("Ray", 1000)]
    )
    context, rows = multiprocessing.get_context("spawn"), []
    print("driver, trials that train nothing (one run each)")
    for way, trials in sizes:
        answer = context.SimpleQueue()
        process = context.Process(target=measured, args=(way, trials, answer))
        process.start()
        process.join()
        assert process.exitcode == 0, "the driver failed: see above"
        cpu, wall, grown = answer.get()
        rows.append({"way": way, "trials": trials, "cpu_seconds": cpu, "seconds": wall, "megabytes": grown})
        each = f"{1000 * cpu / trials:9.1f} ms CPU each{1000 * wall / trials:9.1f} ms each"
        print(f"{way:<6}{trials:6} trials{each}{grown:8.1f} MB more")
    timing.write(told.out, "driver", {"rows": rows})


if __name__ == "__main__":
    main()
