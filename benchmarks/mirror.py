"""How long the driver's callbacks take while MLflow is well, gone, or hangs: a whole study with no training in it.

    python -m benchmarks.mirror [--trials N]

Prints one JSON object a case: number of callbacks, and the median and the longest in milliseconds.
"""

from __future__ import annotations

import json
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from absld_search.core.records import EpochLog
from absld_search.search import wire
from absld_search.search.ledger import Ledger
from absld_search.search.mirroring import Mirroring
from absld_search.search.queue import Queue
from absld_search.search.searcher import LedgerSearcher
from tests.search.requests import plan, pretend


@contextmanager
def nobody() -> Iterator[str]:
    """The address of a port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def file() -> Iterator[str | None]:
    """The store in a file of the study's folder: the default."""
    yield None


class Timed:
    """Calls what it is given, and keeps the milliseconds that it took."""

    def __init__(self) -> None:
        self.took: list[float] = []

    def __call__(self, action: Callable[..., Any], *words: Any) -> Any:
        began = time.perf_counter()
        found = action(*words)
        self.took.append(1000 * (time.perf_counter() - began))
        return found


def study(out: Path, uri: str | None, trials: int) -> dict[str, float]:
    """The times of all callbacks of a study of `trials` configurations of two epochs, and of its two ends."""
    place: dict[str, Any] = {} if uri is None else {"tracking_uri": uri}
    made = plan(out, trials=trials, **place)
    queue = Queue(made, Ledger(made.request.storage, made.request.study))
    mirroring, timed, ends = Mirroring(made, queue.ledger, lambda line: None), Timed(), Timed()
    ends(mirroring.open)
    searcher, number = LedgerSearcher(queue, mirroring, print), 0
    while isinstance(asked := searcher.suggest(str(number)), dict):
        found = wire.unpacked(asked)
        mirroring.sent.clear()  # every epoch is told
        log = EpochLog(made.folder / "trainings" / found["training"] / "epochs.jsonl")
        for epoch in (1, 2):
            log.append(epoch, pretend(found["job"]))
            timed(searcher.on_trial_result, str(number), wire.packed(epoch=epoch, metrics={}))
        final = pretend(found["job"])
        timed(searcher.on_trial_complete, str(number), wire.packed(final=final, epochs=2, seconds=0.0))
        number += 1
    ends(mirroring.close, 600.0)
    shown = {"n": len(timed.took), "median_ms": statistics.median(timed.took), "longest_ms": max(timed.took)}
    return shown | {"open_s": ends.took[0] / 1000, "close_s": ends.took[1] / 1000}


@click.command()
@click.option("--trials", default=40, show_default=True)
def main(trials: int) -> None:
    """Measure the three cases in turn."""
    for case in (file, nobody, silence):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, case() as uri:
            found = study(Path(folder), uri, trials)
            rounded = {name: round(value, 2) for name, value in found.items()}
            print(json.dumps({"case": case.__name__, **rounded}), flush=True)


if __name__ == "__main__":
    main()
