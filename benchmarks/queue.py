"""What a trial costs the driver, without Ray, MLflow or training: `python -m benchmarks.queue`.

Prints milliseconds of CPU per trial in the first and the last hundred, so that growth is seen.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from absld_search.search.ledger import Ledger, sqlite_url
from absld_search.search.plan import Request, resolve
from absld_search.search.queue import Queue
from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={"one": {}},
    tuned={"temperature_lr": LogUniform(1e-2, 1.0), "initial_temperature_adv": LogUniform(0.5, 2.0)},
)


@click.command()
@click.option("--trials", default=1000, show_default=True)
@click.option("--sampler", default="random", show_default=True)
@click.option("--stopping", default="none", show_default=True)
@click.option("--memory", is_flag=True, help="A database in memory, so that the disk does not count.")
def main(trials: int, sampler: str, stopping: str, memory: bool) -> None:
    """Run a study whose trainings cost nothing."""
    with tempfile.TemporaryDirectory() as folder:
        url = "sqlite://" if memory else sqlite_url(Path(folder) / "study.db")
        words: dict[str, Any] = {"trials": trials, "seeds": 1, "sampler": sampler, "stopping": stopping}
        request = Request("queue", "How long?", "digits", "study", Path(folder), url, tracking_uri="", **words)
        queue = Queue(resolve(request, SPACE), Ledger(url, "study"))
        marks, began = [time.process_time()], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = 0
        while (row := queue.take()) is not None:
            rate = row["job"]["hyperparameters"]["temperature_lr"]
            metrics = {"robust_accuracy": 0.7 - rate / 10, "worst_class_robust_accuracy": 0.4 + rate / 10}
            metrics |= {"robust_cvar": 0.4 + rate / 10}
            queue.done(row["training"], metrics, "", epochs=1, seconds=0.0)
            done += 1
            if done % 100 == 0:
                marks.append(time.process_time())
        each = [10 * (b - a) for a, b in zip(marks, marks[1:], strict=False)]
        click.echo(f"{sampler} + {stopping}: {done} trainings, ms of CPU each by hundreds "
                   f"{[round(part, 1) for part in each]}, all {1000 * (marks[-1] - marks[0]) / done:.1f}; memory grew "
                   f"by {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began) / 1024:.0f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
