"""The logit bank: time of a look-up of 128 rows, memory of one more training, and what half precision would cost.

    python -m benchmarks.bank [--short]

A block of 50,000 images is written and mapped. Memory: how much of the block another process that looks up an epoch
has for itself and does not share, by what the system says of the mapped file; what Arrow holds more after it; and the
most that numpy holds during one look-up, answer and comparison of the views included (torch wraps that answer and
allocates nothing). Half precision: the largest and the mean
change of the training targets softmax(z / tau), tau 1, of logits as large as a teacher's, stored in 16 bits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from absld_search.core.data import Batch, Split
from absld_search.core.logit_bank import LogitBank
from absld_search.core.logit_blocks import Block, write
from absld_search.workloads import Augmentation
from benchmarks import timing
from benchmarks.options import options

IMAGES, CLASSES, BATCH = 50_000, 10, 128
LOOK_UPS = 200


def bank(folder: Path) -> LogitBank:
    """Its network is never asked: the block is there."""
    ids = torch.arange(IMAGES)
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8).expand(IMAGES, -1, -1, -1)
    split = Split(pixels, ids % CLASSES, ids, CLASSES, Augmentation(padding=4, flip=True), rows=ids)
    return LogitBank(torch.nn.Identity(), "benchmark", split, 0, folder)


def batches(kept: LogitBank) -> list[Batch]:
    """LOOK_UPS batches of an epoch's views, without their pixels."""
    view, order = kept.split.views_of(1, 0), torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    parts = order.split(BATCH)[:LOOK_UPS]
    return [Batch(torch.empty(0), kept.split.labels[rows], rows, view[rows]) for rows in parts]


def memory(folder: Path, answer: multiprocessing.queues.SimpleQueue) -> None:
    """What another process has of the logits for itself, after it has looked up an epoch."""
    kept = bank(folder)
    kept.open()
    before = pa.total_allocated_bytes()
    for batch in batches(kept):
        kept.clean_logits(batch)
    arrow = pa.total_allocated_bytes() - before
    answer.put((copied(), arrow, peak(kept, batches(kept)[0]), not kept.block.logits.flags.owndata))


def peak(kept: LogitBank, batch: Batch) -> int:
    """Bytes that numpy and Python hold at most during one look-up, beyond those before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept.clean_logits(batch)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def copied() -> int:
    """Bytes of the mapped block of which this process has a copy of its own."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0]:  # the first line of a mapping: addresses ... file
            inside = line.endswith(".arrow")
        elif inside and line.startswith(("Private_Dirty", "Anonymous")):
            found += int(line.split()[1]) * 1024
    return found


def half_precision() -> dict[str, float]:
    """Of Gaussian logits with standard deviation 3, as a robust teacher's are."""
    z = torch.randn(100_000, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
    moved = (torch.softmax(z.half().float(), 1) - torch.softmax(z, 1)).abs()
    return {"largest": moved.max().item(), "mean": moved.mean().item()}


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    return options(__doc__, words=words)


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = bank(folder)
        logits = np.random.default_rng(0).standard_normal((IMAGES, CLASSES), dtype=np.float32)
        write(folder / "stream-0" / "epoch-00001.arrow", Block(kept._keys_of(1), logits))
        kept.open()
        seen = batches(kept)
        again = torch.from_numpy(logits)
        found = timing.in_turns(
            {
                "rows of a tensor in memory": lambda: [again[batch.index] for batch in seen],
                "bank, with its check of the views": lambda: [kept.clean_logits(batch) for batch in seen],
                "bank, opening an epoch": lambda: [kept._block(1) for _ in range(20)],
            },
            rounds=5 if told.short else 25,
        )
        context = multiprocessing.get_context("spawn")
        answer = context.SimpleQueue()
        other = context.Process(target=memory, args=(folder, answer))
        other.start()
        own, allocated, most, mapped = answer.get()
        other.join()
    print(timing.table(f"{LOOK_UPS} look-ups of {BATCH} rows (an opening: 20 times)", found))
    micro = found[1].seconds / LOOK_UPS * 1e6
    print(f"a look-up {micro:.1f} us; an opening {found[2].seconds / 20 * 1e3:.2f} ms")
    print(f"one training more: {own} bytes of the block copied, {allocated} allocated by Arrow, mapped: {mapped}")
    print(f"a look-up: {most} bytes at most by numpy and Python, of which {4 * BATCH * CLASSES} are the answer")
    half = half_precision()
    print(f"targets from 16 bits: moved by {half['largest']:.1e} at most, {half['mean']:.1e} on average")
    facts = {"microseconds_a_look_up": micro, "goal": 20, "copied_bytes": own, "arrow_bytes": allocated}
    facts |= {"look_up_peak_bytes": most, "answer_bytes": 4 * BATCH * CLASSES}
    timing.write(told.out, "bank", {"ratios": timing.plain(found), **facts, "half_precision": half})


if __name__ == "__main__":
    main()
