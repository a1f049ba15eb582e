"""What a trial costs the driver, without Ray or training: `python -m benchmarks.queue`.

Milliseconds of the driver's CPU by hundreds of trials, so that growth is seen, with the threads that repeat a study to
MLflow where --mlflow asks for them. A run replaces its own row in docs/results/search/queue.json and docs/search.md.
What Ray adds: `benchmarks/driver.py`.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from absld_search.core.metrics import NAMES
from absld_search.search import wire
from absld_search.search.ledger import Ledger, sqlite_url
from absld_search.search.mirroring import Mirroring
from absld_search.search.plan import Plan, Request, resolve
from absld_search.search.queue import Queue
from absld_search.search.searcher import LedgerSearcher
from absld_search.space import LogUniform, SearchSpace
from benchmarks import pages, search_page

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={"one": {}},
    tuned={"temperature_lr": LogUniform(1e-2, 1.0), "initial_temperature_adv": LogUniform(0.5, 2.0)},
)
Step = Callable[[], bool]  # one training, from being taken to being written down; False: there is none left


def pretend(job: dict[str, Any]) -> dict[str, float]:
    """Metrics as a function of what is tuned."""
    rate = job["hyperparameters"]["temperature_lr"]
    values = dict.fromkeys([*NAMES, *(f"test/{name}" for name in NAMES)], 0.5)
    return values | {"robust_accuracy": 0.7 - rate / 10, "robust_cvar": 0.4 + rate / 10}


def alone(made: Plan) -> Step:
    """The ledger, Optuna and the queue."""
    queue = Queue(made, Ledger(made.request.storage, "study"))

    def step() -> bool:
        row = queue.take()
        if row is not None:
            queue.done(row["training"], pretend(row["job"]), "", epochs=1, seconds=0.0)
        return row is not None

    return step


@contextmanager
def mirrored(made: Plan) -> Iterator[Step]:
    """The same as Ray Tune calls it, repeated to MLflow in the background, and waited for at the end."""
    queue = Queue(made, Ledger(made.request.storage, "study"))
    mirroring = Mirroring(made, queue.ledger, lambda line: None)
    mirroring.open()
    searcher, count = LedgerSearcher(queue, mirroring, print), iter(range(10**9))

    def step() -> bool:
        found, name = searcher.suggest(number := str(next(count))), number
        if not isinstance(found, dict):
            return False
        final = pretend(wire.unpacked(found)["job"])
        searcher.on_trial_complete(name, wire.packed(final=final, epochs=1, seconds=0.0))
        return True

    yield step
    mirroring.close(600.0)


def measured(step: Step) -> tuple[list[float], list[float], int]:
    """CPU seconds and memory at the start and after every hundred trainings, and how many there were."""
    marks, memories, done = [time.process_time()], [memory()], 0
    while step():
        done += 1
        if done % 100 == 0:
            marks.append(time.process_time())
            memories.append(memory())
    return marks, memories, done


def memory() -> float:
    """What this process holds, MiB; the most it has held where nothing tells."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(made: Plan, mlflow: bool) -> dict[str, Any]:
    """A whole study whose trainings cost nothing; with MLflow its last word is part of the sum."""
    cpu = time.process_time()
    if mlflow:
        with mirrored(made) as step:
            marks, held, done = measured(step)
    else:
        marks, held, done = measured(alone(made))
    total = time.process_time() - cpu
    each = [10 * (b - a) for a, b in zip(marks, marks[1:], strict=False)]
    return {"trials": done, "milliseconds": 1000 * total / done, "hundreds": each, "memory": held}


@click.command()
@click.option("--trials", default=1000, show_default=True)
@click.option("--sampler", default="random", show_default=True)
@click.option("--stopping", default="none", show_default=True)
@click.option("--mlflow", is_flag=True, help="Repeat the study to a store in a file, as a study does.")
@click.option("--memory", "in_memory", is_flag=True, help="A database in memory, so that the disk does not count.")
@click.option("--out", type=click.Path(path_type=Path), default=search_page.PAGE.results, show_default=False)
def main(trials: int, sampler: str, stopping: str, mlflow: bool, in_memory: bool, out: Path) -> None:
    """Run a study whose trainings cost nothing."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        (place / "study").mkdir()
        url = "sqlite://" if in_memory else sqlite_url(place / "study.db")
        words: dict[str, Any] = {"trials": trials, "seeds": 1, "sampler": sampler, "stopping": stopping}
        words["tracking_uri"] = sqlite_url(place / "mlflow.db")
        request = Request("queue", "How long?", "digits", "study", place, url, **words)
        way = "queue, MLflow" if mlflow else "queue in memory" if in_memory else "queue"
        row = {"way": way, "sampler": sampler, "stopping": stopping, **run(resolve(request, SPACE), mlflow)}
    key = ("way", "sampler", "stopping")
    kept = [old for old in pages.read(out, "queue").get("rows", []) if any(old[k] != row[k] for k in key)]
    search_page.PAGE.write(out, "queue", {"rows": [*kept, row]})
    click.echo(search_page.queue({"rows": [row]}))
    click.echo("by hundreds: " + ", ".join(f"{part:.1f}" for part in row["hundreds"]))


if __name__ == "__main__":
    main()
