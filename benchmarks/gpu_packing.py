"""`packing` of benchmarks/gpu.py: several small trainings in one GPU, as processes, against one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch

from absld_search.core import models
from absld_search.core.speed import Speed
from benchmarks.gpu_setting import Setting, again
from benchmarks.train_step import OurStep, Table, batch_of

READY = "ready\n"
UNWAITED = 20  # steps that are given to the device before it is waited for


def packing(setting: Setting) -> dict[str, Any]:
    """Images a second of k processes that share the device, each a small training of its own.

    All begin together once each is warm, and count the same seconds: none has the device to itself meanwhile.
    """
    found: dict[str, float] = {}
    for number in setting.size.packed:
        if setting.late(120):  # imports, warming up, thirty seconds that count
            break
        found[str(number)] = sum(together(setting, number))
        print(f"{number} processes: {found[str(number)]:.0f} images a second", flush=True)
        setting.keep("packing", {"images_a_second": found})
    return {"images_a_second": found, "gain": max(found.values()) / found["1"]}


def together(setting: Setting, number: int) -> list[float]:
    """Images a second of each of so many processes. Raises: RuntimeError where one of them fails."""
    words = [sys.executable, "-m", "benchmarks.gpu", "one", *(["--toy"] if setting.toy else [])]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(words, **pipes) for _ in range(number)]
    try:
        ready = [process.stdout.readline() for process in running if process.stdout]
        for process in running:
            if process.stdin and all(line == READY for line in ready):
                process.stdin.write("\n")
                process.stdin.flush()
        said = [process.communicate()[0].split() for process in running]
    finally:
        for process in running:
            process.kill()
    if any(process.returncode for process in running) or not all(said):
        raise RuntimeError(f"one of {number} processes failed")
    return [float(words[-1]) for words in said]


def one(setting: Setting) -> dict[str, Any]:
    """One small training, for `packing`: warm, it says so and waits for a line, then counts images for a while."""
    torch.set_num_threads(1)
    batch = batch_of(setting.size.batch, device=setting.device)
    student = models.build(setting.size.small, 10, 3, 0).to(setting.device)
    ours = OurStep(student, Table(torch.randn(len(batch.y), 10, device=setting.device)), batch, Speed())
    several, steps, seconds = again(UNWAITED, ours.step), 0, 0.2 if setting.toy else 30.0
    several()
    setting.clock()
    print(READY, end="", flush=True)
    if not sys.stdin.readline():
        raise RuntimeError("another process did not get ready")
    began = setting.clock()
    while (now := setting.clock()) - began < seconds:
        several()
        steps += UNWAITED
    print(steps * len(batch.y) / (now - began))
    return {}
