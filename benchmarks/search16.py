"""A search of 16 ABSLD trainings with a large teacher, end to end: asked anew at every step, or asked once for all.

    python -m benchmarks.search16 [--short] [--trials 16] [--batches 1] [--rounds 9]

Student ResNet-8 of width 16, teacher WRN-34-10 (46 million parameters, freshly initialised: its cost does not depend on
its weights), real CIFAR-10 where it is found and random images otherwise, batches of 64, PGD-10, one thread, one
training after the other. The plain way is ABSLD as one writes it down. Ours is the trainer with a logit bank that is
empty at the start and filled inside the time. CPU time of the process; the teacher's images are counted on both sides.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import models
from absld_search.core.data import Split
from absld_search.core.logit_bank import LogitBank, Network
from absld_search.core.methods.absld import ABSLD
from absld_search.core.methods.base import knobs
from absld_search.core.trainer import Options, Schedule, Trainer
from absld_search.workloads import CIFAR10 as SETTING
from benchmarks import timing
from benchmarks.options import options
from benchmarks.plain import PlainABSLD
from benchmarks.views import pixels

BATCH, TEACHER, STUDENT = 64, "wrn-34-10", "resnet-8-16"
RATES = [0.02 * (number + 1) for number in range(100)]  # of the temperatures: what the search is about


def split(batches: int) -> Split:
    """So many batches of images in CIFAR's views."""
    ids = torch.arange(batches * BATCH)
    return Split(torch.from_numpy(pixels(len(ids)).copy()), ids % 10, ids, 10, SETTING.augmentation, rows=ids)


def plain_training(seed_of: int, teacher: nn.Module, images: Split) -> None:
    """One epoch of the plain step, in the trainer's views and order: the teacher is run for every batch."""
    torch.manual_seed(seed_of)
    student = PlainABSLD(models.build(STUDENT, 10, 3, seed_of), teacher, 10)
    for batch in images.batches(BATCH, seed_of, 1):
        student.step(batch.x, batch.y)


class Counted(nn.Module):
    """A teacher as it is, without any short cut, that counts the images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.model(x)


def our_training(seed_of: int, rate: float, asked: Network, images: Split, more: dict[str, str]) -> None:
    """The same by the trainer."""
    method = ABSLD(temperature_lr=rate)
    student = models.build(STUDENT, 10, 3, seed_of)
    schedule = Schedule(1, BATCH, 0.1, 0.9, 2e-4, (0.9,), 0.1)
    Trainer(student, method, {"robust": asked}, images, schedule, seed_of, Options(**more)).run_epoch()  # type: ignore[arg-type]


def search(trials: int, training: Callable[[float], int]) -> tuple[float, int]:
    """(seconds of CPU time, images that the teacher was asked about) of so many trainings."""
    began = time.process_time()
    asked = sum(training(RATES[number]) for number in range(trials))
    return time.process_time() - began, asked


def rounds(count: int, trials: int, images: Split, model: nn.Module) -> dict[str, list[tuple[float, int]]]:
    """What `search` finds of each variant, `count` times in turns, every bank empty at its start."""
    found: dict[str, list[tuple[float, int]]] = {}
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            several = list(variants(images, model, Path(folder)).items())
            random.Random(number).shuffle(several)
            for name, training in several:
                found.setdefault(name, []).append(search(trials, training))
        print(f"round {number + 1} of {count}", flush=True)
    return found


def row(variant: str, of: list[tuple[float, int]], plain: list[tuple[float, int]]) -> dict[str, Any]:
    """A line of the result: medians of the ratios within a round, and the lowest and highest."""
    ratios = [there[0] / here[0] for here, there in zip(of, plain, strict=True)]
    faster = {"faster": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    seconds = statistics.median(each[0] for each in of)
    return {"variant": variant, "seconds": seconds, **faster, "teacher_images": max(each[1] for each in of)}


def variants(images: Split, model: nn.Module, folder: Path) -> dict[str, Callable[[float], int]]:
    """{name: a training that says how many images its teacher was asked about}."""

    def plain(rate: float) -> int:
        teacher = Counted(model).eval()
        plain_training(0, teacher, images)
        return teacher.asked

    def ours(name: str, **more: str) -> Callable[[float], int]:
        def training(rate: float) -> int:
            asked = LogitBank(model, TEACHER, images, 0, folder / name)
            our_training(0, rate, asked, images, more)
            return asked.count.asked

        return training

    found = {"plain, float32": plain, "bank, float32": ours("float32")}
    if "precision" in knobs(Options):
        found["bank, bfloat16"] = ours("bfloat16", precision="bf16")
    return found


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    more = (("--trials", int, 16, "trainings"), ("--batches", int, 1, "of 64 images, a training"))
    return options(__doc__, *more, ("--rounds", int, 9, "in turns"), words=words)


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    trials, count = (min(told.trials, 4), 1) if told.short else (told.trials, told.rounds)
    images, model = split(told.batches), models.build(TEACHER, 10, 3, 0)
    our_training(0, 0.1, Network(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))), images, {})  # warm
    results = rounds(count, trials, images, model)
    plain = results["plain, float32"]
    found = [row(variant, of, plain) for variant, of in results.items()]
    print(f"{trials} trainings of {told.batches} batches of {BATCH}, {TEACHER} to {STUDENT}, {count} rounds")
    for each in found:
        print("{variant:<18}{seconds:9.1f} s{faster:8.2f}x [{low:.2f} to {high:.2f}]   {teacher_images} teacher images"
              .format_map(each))  # fmt: skip
    size = {"trials": trials, "batches": told.batches, "batch": BATCH, "rounds": count}
    goals = {"float32": 8.5, "bfloat16": 11, "teacher": f"1/{trials}", "at": "16 trials"}
    timing.write(
        told.out, "search16", {"size": size, "rows": found, "goals": goals, "schedule": asdict(SETTING)["num_steps"]}
    )


if __name__ == "__main__":
    main()
