"""How many trainings run at a time, and on how many threads and how much of a GPU each.

One thread a training, always: two trainings of one thread on two cores do more than one of two threads, more threads
than cores cost twice the time, and another number of threads would round other sums. Whoever wants a training to have
more cores to itself gets fewer trainings at a time, and the same numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from absld_search.search.plan import Request

# Read by the libraries while they are imported, so a worker must be started with them. They overrule what the caller's
# environment says: a cluster that exports the number of its cores means programs that run alone.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",  # torch, Arrow, and whatever else uses OpenMP
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # otherwise a pool of processes in every worker
}
CGROUP = Path("/sys/fs/cgroup/cpu.max")
GPU_SHARE_USED = 0.9  # of a training's share: what CUDA itself needs beside each process is not counted by torch


def cores() -> int:
    """CPU cores that this process may use: those of the machine, less what its container or its parent keeps back."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        quota, period = CGROUP.read_text(encoding="ascii").split()
        allowed = min(allowed, float(quota) / float(period))  # "max" is no number, and no limit
    return max(1, math.floor(allowed))


def at_a_time(request: Request, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trainings the machines ({"CPU": ..., "GPU": ...} each) carry, or fewer where fewer are asked for.

    A process lies on one machine: two cores on one and two on another carry no process of four. Of a cluster that
    grows only the person knows to what: there `--max-concurrent` is taken at its word.
    """
    if request.wait_for_nodes and request.max_concurrent:
        return request.max_concurrent
    each = bundles(request)
    carried = max(1, sum(fits(each[0], node) for node in nodes) // len(each))
    return carried if request.max_concurrent is None else min(carried, request.max_concurrent)


def bundles(request: Request) -> list[dict[str, float]]:
    """What Ray sets aside for one training: a share for each of its processes, the first being the one that reports."""
    count = processes(request)
    return [{"CPU": request.cpus_per_trial / count, "GPU": request.gpus_per_trial / count} for _ in range(count)]


def processes(request: Request) -> int:
    """Of one training: one for each of its GPUs, or as many as were asked for."""
    return request.processes_per_trial or max(1, math.floor(request.gpus_per_trial))


def fits(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many times the resources `bundle` fit into those of one machine."""
    room = [node.get("CPU", 0) / bundle["CPU"]]
    if bundle["GPU"] > 0:
        room.append(_on_gpus(node.get("GPU", 0), bundle["GPU"]))
    return math.floor(min(room) + 1e-9)


def _on_gpus(gpus: float, share: float) -> float:
    """Fractions are of one GPU: at 0.4 each GPU carries two, and its last fifth nothing."""
    return gpus * math.floor(1 / share + 1e-9) if share < 1 else gpus / share


def memory_fraction(gpus_per_trial: float) -> float | None:
    """The share of a GPU's memory that one training may take; None: all there is."""
    return GPU_SHARE_USED * gpus_per_trial if 0 < gpus_per_trial < 1 else None
