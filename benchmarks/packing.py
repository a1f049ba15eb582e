"""Trainings side by side: what two processes of one thread do on two cores, against one process, and against threads.

    python -m benchmarks.packing [--short] [--device cpu] [--processes 2]

Every process trains a ResNet-8 of width 16 by ABSLD on images of its own choice, from a warm logit bank, batches of 64.
They wait for each other, then run the same number of steps; throughput is steps of all processes a second of wall-clock
time. With --device cuda the processes share one GPU, each with its share of the memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from absld_search.core import models
from absld_search.core.logit_bank import LogitBank
from absld_search.core.methods import METHODS
from absld_search.core.trainer import Schedule, Trainer
from absld_search.search.resources import memory_fraction
from benchmarks import timing
from benchmarks.options import options
from benchmarks.search16 import BATCH, STUDENT, split


def work(number: int, steps: int, device: str, share: float, folder: str, inbox: Any, outbox: Any) -> None:
    """Answers every (threads) with the seconds that so many steps took."""
    torch.set_num_threads(1)
    images = split(steps)
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(memory_fraction(share) or 1.0)
        images = type(images)(
            **{**vars(images), **{k: v.cuda() for k, v in vars(images).items() if torch.is_tensor(v)}}
        )
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).to(device)
    asked = LogitBank(teacher, "t", images, 0, Path(folder) / str(number))
    student = models.build(STUDENT, 10, 3, number).to(device)
    schedule = Schedule(10_000, BATCH, 0.01, 0.9, 2e-4, (0.9,), 0.1)
    trainer = Trainer(student, METHODS["absld"](), {"robust": asked}, images, schedule, 0)
    trainer.run_epoch()
    outbox.put(0.0)
    while (threads := inbox.get()) is not None:
        torch.set_num_threads(threads)
        trainer.epoch = 0  # the same views, which the bank holds
        began = time.perf_counter()
        trainer.run_epoch()
        outbox.put(time.perf_counter() - began)


class Processes:
    """So many of them, ready to run."""

    def __init__(self, count: int, steps: int, device: str, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.steps = steps
        self.inboxes, self.outbox = [context.Queue() for _ in range(count)], context.Queue()
        for number, inbox in enumerate(self.inboxes):
            context.Process(
                target=work, args=(number, steps, device, 1 / count, folder, inbox, self.outbox), daemon=True
            ).start()
        for _ in self.inboxes:
            self.outbox.get(timeout=300)

    def steps_a_second(self, processes: int, threads: int) -> float:
        """Throughput of the first `processes` of them."""
        began = time.perf_counter()
        for inbox in self.inboxes[:processes]:
            inbox.put(threads)
        for _ in range(processes):
            self.outbox.get(timeout=600)
        return processes * self.steps / (time.perf_counter() - began)

    def end(self) -> None:
        for inbox in self.inboxes:
            inbox.put(None)


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    more = (("--device", str, "cpu", "cpu or cuda"), ("--processes", int, 2, "at most at a time"))
    return options(__doc__, *more, words=words)


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    count, rounds = told.processes, 3 if told.short else 9
    ways = [(1, 1), (count, 1), *([(1, count), (count, count)] if told.device == "cpu" else [])]
    taken: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    os.environ.pop("OMP_NUM_THREADS", None)  # here threads are what is compared
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(count, 2 if told.short else 8, told.device, folder)
        for number in range(rounds + 1):
            for way in ways if number % 2 else reversed(ways):
                rate = processes.steps_a_second(*way)
                if number:
                    taken[way].append(rate)
        processes.end()
    rows = []
    print(f"{STUDENT}, batches of {BATCH}, {told.device} ({rounds} rounds, median of per-round ratios [range])")
    for way, rates in taken.items():
        ratios = [here / one for here, one in zip(rates, taken[1, 1], strict=True)]
        middle = (statistics.median(rates), statistics.median(ratios), min(ratios), max(ratios))
        rows.append(dict(zip(("steps_a_second", "faster", "low", "high"), middle, strict=True)))
        rows[-1] |= {"processes": way[0], "threads": way[1]}
        ratio = f"{middle[1]:7.2f}x  [{middle[2]:.2f} to {middle[3]:.2f}]"
        print(f"{way[0]} processes x {way[1]} threads{middle[0]:8.2f} steps/s{ratio}")
    timing.write(told.out, "packing", {"device": told.device, "rows": rows, "rounds": rounds, "goal": 0.9 * count})


if __name__ == "__main__":
    main()
