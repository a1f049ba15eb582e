"""In the place of a training: what Ray's workers run when only the driver is to be driven.

It imports no torch, so that 64 workers fit into a small machine. Its curve is made up from the configuration and the
seed, or replayed from a table of recorded ones (`benchmarks.replay_record`), epoch by epoch, with or without sleep.
"""

from __future__ import annotations

import functools
import math
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absld_search.core.metrics import NAMES
from absld_search.search import wire

Curve = list[dict[str, float]]


def pretend(job: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as a function of the configuration and the seed: the worst class and the mean pull apart."""
    rate = float(job["hyperparameters"].get("temperature_lr", 0.1))
    noise = math.sin(1000 * job["seed"]) / 100
    values = dict.fromkeys([*NAMES, *(f"test/{name}" for name in NAMES)], 0.5)
    tail = {name: 0.4 + 0.1 * rate + noise for name in ("worst_class_robust_accuracy", "robust_cvar")}
    return values | tail | {"robust_accuracy": 0.7 - 0.1 * rate + noise}


def made_up(job: Mapping[str, Any], epochs: int) -> Curve:
    """A curve that rises to what `pretend` says."""
    last = pretend(job)
    return [{name: value * (1 - 0.5 / epoch) for name, value in last.items()} for epoch in range(1, epochs)] + [last]


@functools.lru_cache(maxsize=1)
def recorded(table: Path) -> list[Curve]:
    """The curves of the longest trainings in a table, in the order of its configurations and seeds."""
    import pyarrow.parquet as pq

    rows = pq.read_table(table).to_pylist()
    longest = max(row["schedule"] for row in rows)
    kept = [name for name in NAMES if name in rows[0]]
    found: dict[tuple[int, int], Curve] = {}
    for row in sorted(rows, key=lambda row: row["epoch"]):
        if row["schedule"] == longest:
            curve = found.setdefault((row["configuration"], row["seed"]), [])
            curve.append({name: row[name] for name in kept if row[name] is not None})
    return [found[key] for key in sorted(found)]


def curve(job: Mapping[str, Any], training: str, epochs: int, table: Path | None) -> Curve:
    """The training's curve: one of the recorded ones, always the same for the same training, or a made-up one."""
    if table is None:
        return made_up(job, epochs)
    curves = recorded(table)
    values = curves[zlib.crc32(training.encode()) % len(curves)]
    return [{**pretend(job), **row} for row in values]


def simulated(
    job: dict[str, Any], epochs: int = 1, seconds: float = 0.0, table: Path | None = None, until: float = 0.0, **_: Any
) -> dict[str, Any]:
    """What `search.worker.train` is to Ray Tune, without a training: `epochs - 1` reports and the end.

    `seconds`: the sleep of each epoch. `until`: a time before which none begins.
    """
    from ray import tune

    began = time.monotonic()
    time.sleep(max(0.0, until - time.time()))
    *before, last = curve(job["job"], job["training"], epochs, table)
    for number, metrics in enumerate(before, start=1):
        time.sleep(seconds)
        tune.report(wire.packed(epoch=number, metrics=metrics))
    time.sleep(seconds)
    return {"final": last, "epochs": len(before) + 1, "seconds": time.monotonic() - began}
