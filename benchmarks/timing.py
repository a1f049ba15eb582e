"""Variants timed in turns: every round runs each of them once, in a new order, so a busy machine hurts all alike."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the first variant: the median over rounds, and the lowest and highest round."""

    variant: str
    seconds: float  # median of one run
    median: float
    low: float
    high: float
    rounds: int


def in_turns(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    clock: Callable[[], float] = time.process_time,
    late: Callable[[], bool] = lambda: False,
) -> list[Ratio]:
    """One `Ratio` a variant, the first being what the others are held against; each is run once beforehand.

    `clock`: process CPU time by default, which forgives other processes; `time.perf_counter` where a variant uses
    more than one thread, more than one process, or a GPU (and then waits for it itself). After one round at least,
    none begins when it is `late`.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    order = list(variants)
    for number in range(rounds):
        if number and late():
            break
        random.Random(number).shuffle(order)
        for name in order:
            began = clock()
            variants[name]()
            taken[name].append(clock() - began)
    first = taken[next(iter(variants))]
    return [_ratio(name, seconds, first) for name, seconds in taken.items()]


def _ratio(name: str, seconds: list[float], first: list[float]) -> Ratio:
    ratios = [there / here for here, there in zip(seconds, first, strict=True)]
    found = (statistics.median(seconds), statistics.median(ratios), min(ratios), max(ratios))
    return Ratio(name, *found, rounds=len(seconds))


def table(title: str, ratios: list[Ratio]) -> str:
    """A few lines to read."""
    width = max(len(found.variant) for found in ratios)
    rows = [
        f"{found.variant:<{width}}  {found.seconds:10.4f} s  {found.median:7.2f}x  "
        f"[{found.low:.2f} to {found.high:.2f}]"
        for found in ratios
    ]
    return "\n".join([f"{title} ({ratios[0].rounds} rounds, median of per-round ratios [range])", *rows])


def write(out: Path, name: str, found: Mapping[str, Any]) -> Path:
    """`found` and the kind of machine as OUT/NAME.json."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8")
    return path


def plain(ratios: list[Ratio]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(found) for found in ratios]


def machine() -> dict[str, Any]:
    """The kind of machine, never its name."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "date": date.today().isoformat(),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
