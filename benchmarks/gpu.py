"""What only a GPU can tell, each part at most nine minutes there. Needs torch and numpy, and pyautoattack for the last.

python -m benchmarks.gpu step|epochs|packing|autoattack [--toy] [--data cifar10.parquet] [--peak 989e12] [--out FOLDER]

step        our step against the plain one, same GPU: ResNet-18 and MobileNet-v2, fp32, TF32, bf16, compiled, graphs
epochs      ABSLD on ResNet-18 with PGD-10 and a look at val every few epochs, projected to 300 epochs
packing     several small trainings in one GPU, as processes, against one
autoattack  the standard AutoAttack on 2,000 images, strict fp32 and TF32, projected to 10,000 of which half stand

Figures are wall-clock, the device waited for. --toy runs everything on small networks and few images, on a CPU too: to
see that it runs, not how fast. Images are random unless a CIFAR-10 Parquet file of the Hugging Face layout is given
(which pyarrow and Pillow read); `autoattack` demands one, since on random images hardly any stands.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from absld_search.core import evaluation, models
from absld_search.core.data import Batch
from absld_search.core.logit_bank import Network
from absld_search.core.methods.absld import ABSLD
from absld_search.core.speed import Speed
from absld_search.core.trainer import Options, Schedule, Trainer
from benchmarks import timing
from benchmarks.gpu_autoattack import autoattack
from benchmarks.gpu_packing import one, packing
from benchmarks.gpu_setting import FULL, PEAK, TOY, Setting, again, bank, flops, images_of, tf32, within
from benchmarks.options import RESULTS
from benchmarks.plain import PlainABSLD
from benchmarks.train_step import OurStep, Table, batch_of


def step(setting: Setting) -> dict[str, Any]:
    """The plain step, then ours in every precision, compiled, replayed."""
    found: dict[str, Any] = {}
    for name in setting.size.students:
        if not setting.late():
            found[name] = one_student(setting, name)
            setting.keep("step", found)
    return found


def one_student(setting: Setting, name: str) -> dict[str, Any]:
    """Times of every variant that could be prepared in time, and each one's share of the peak."""
    batch = batch_of(setting.size.batch, device=setting.device)
    student, teacher = (models.build(n, 10, 3, 0).to(setting.device) for n in (name, setting.size.teacher))
    plain = PlainABSLD(copy.deepcopy(student), teacher, 10)
    table = Table(Network(teacher).clean_logits(batch))
    made: dict[str, Callable[[], Callable[[], object]]] = {
        "plain TF32": lambda: within(True, lambda: plain.step(batch.x, batch.y)),
        "plain fp32": lambda: within(False, lambda: plain.step(batch.x, batch.y)),
        **ours_of(setting, student, table, batch),
    }
    variants = {}
    for variant, make in made.items():
        if not setting.late():
            variants[variant] = again(setting.size.repeated, make())
            variants[variant]()
    ratios = timing.in_turns(variants, setting.size.rounds, setting.clock, setting.late)
    print(timing.table(f"{name}, {setting.size.repeated} x batches of {setting.size.batch}", ratios), flush=True)
    per_step = flops(OurStep(copy.deepcopy(student), table, batch, Speed()))
    shares = {each.variant: per_step * setting.size.repeated / each.seconds / setting.peak for each in ratios}
    return {"ratios": timing.plain(ratios), "flops_a_step": per_step, "share_of_peak": shares}


def ours_of(
    setting: Setting, student: nn.Module, table: Table, batch: Batch
) -> dict[str, Callable[[], Callable[[], object]]]:
    """Our step in every precision and way, each made when its turn comes; what takes minutes to make comes last."""

    def ours(**words: Any) -> Callable[[], object]:
        return OurStep(copy.deepcopy(student), table, batch, Speed(), Options(**words)).step

    made = {
        "ours fp32": lambda: within(False, ours()),
        "ours TF32": lambda: within(True, ours()),
        "ours bf16": lambda: within(True, ours(precision="bf16")),
    }
    if setting.device == "cuda":
        made["ours TF32 replayed"] = lambda: replayed(recordable(student, table, batch))
        made["ours bf16 replayed"] = lambda: replayed(recordable(student, table, batch, precision="bf16"))
    if not setting.toy:
        made["ours bf16 compiled"] = lambda: within(True, ours(precision="bf16", compile=True))
    return made


def recordable(student: nn.Module, table: Table, batch: Batch, **words: Any) -> OurStep:
    """A step without the rescue from full memory: that looks at the generator's state, which recording forbids."""
    return OurStep(copy.deepcopy(student), table, batch, Speed(graphs=True), Options(**words))


def replayed(ours: OurStep) -> Callable[[], object]:
    """Steps replayed as a CUDA graph, warmed up and recorded; TensorFloat-32 is settled by what is recorded."""
    from absld_search.core.graphs import WARM_UP, Replayed

    with tf32(True):
        run = Replayed(lambda batch: ours.trainer._step(ours.method, ours.means, batch), len(ours.batch.y))
        for _ in range(WARM_UP + 2):
            run(ours.batch)
    return lambda: run(ours.batch)


def epochs(setting: Setting) -> dict[str, Any]:
    """Measured epochs, and looks at val of 10,000 images with PGD-20, projected to 300 epochs with 45 looks.

    45: every tenth epoch up to the first drop of the rate, then every third.
    """
    size, fast = setting.size, setting.device == "cuda"
    split, val = images_of(setting, size.images), images_of(setting, max(4, size.images // 5))
    student = models.build(size.students[0], 10, 3, 0).to(setting.device)
    schedule = Schedule(300, size.batch, 0.1, 0.9, 2e-4, (), 0.1)
    how, options = Speed(graphs=fast), Options(precision="bf16")
    trainer = Trainer(student, ABSLD(), {"robust": bank(setting, split)}, split, schedule, 0, options, how=how)
    per_step = flops(OurStep(copy.deepcopy(student), bank(setting, split.first(size.batch)),
                             batch_of(size.batch, device=setting.device), Speed(), options))  # fmt: skip
    taken: list[float] = []
    looks: list[float] = []
    while len(taken) < size.epochs and not setting.late(max(taken, default=0.0) + max(looks, default=0.0)):
        began = setting.clock()
        trainer.run_epoch()
        taken.append(setting.clock() - began)
        if len(taken) % 10 == 1:
            evaluation.evaluate(student, val, ("clean", "pgd20"), 8 / 255, 2 / 255)
            looks.append(setting.clock() - began - taken[-1])
    middle, look = statistics.median(taken), statistics.median(looks)
    found = {"epochs": taken, "looks": looks, "projected_minutes": (300 * middle + 45 * look) / 60}
    mfu = per_step * len(split) / size.batch / middle / setting.peak
    print(f"{len(taken)} epochs of {len(split)} images, median {middle:.2f} s; 300 epochs and 45 looks: "
          f"{found['projected_minutes']:.1f} minutes; {mfu:.1%} of the peak", flush=True)  # fmt: skip
    return {**found, "flops_a_step": per_step, "mfu": mfu}


PARTS = {"step": step, "epochs": epochs, "packing": packing, "autoattack": autoattack, "one": one}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--toy", action="store_true", help="small networks, few images: whether it runs")
    parser.add_argument("--data", type=Path, help="a CIFAR-10 Parquet file; random images without one")
    parser.add_argument("--peak", type=float, default=PEAK, help="operations a second of this GPU in dense bf16")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(words)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if asked.part == "autoattack" and not asked.toy and asked.data is None:
        parser.error("autoattack needs --data: on random images hardly any stands, and these are what it costs")
    if device == "cpu" and not asked.toy:
        parser.error("there is no GPU here; --toy runs everything small, to see that it runs")
    os.environ.setdefault("ABSLD_CACHE_DIR", str(asked.out / "cache"))  # of what is compiled; else platformdirs says
    size, began = TOY if asked.toy else FULL, time.monotonic()
    setting = Setting(size, device, asked.data, began, asked.toy, asked.out, asked.peak)
    found = PARTS[asked.part](setting)
    if asked.part != "one":
        setting.keep(asked.part, found)
        print(asked.out / f"gpu-{asked.part}.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
