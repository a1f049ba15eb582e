"""What only a GPU can tell, each part at most nine minutes there. Needs torch and numpy, and pyautoattack for the last.

python -m benchmarks.gpu step|epochs|packing|autoattack [--toy] [--data cifar10.parquet] [--out FOLDER]

step        our step against the plain one, same GPU: ResNet-18 and MobileNet-v2, fp32, TF32, bf16, compiled, graphs
epochs      ABSLD on ResNet-18 with PGD-10 and a look at val every few epochs, projected to 300 epochs
packing     several small trainings in one GPU, as processes, against one
autoattack  the standard AutoAttack on 2,000 images, strict fp32 and TF32, projected to 10,000

Figures are wall-clock, the device waited for. --toy runs everything on small networks and few images, on a CPU too: to
see that it runs, not how fast. Images are random unless a CIFAR-10 Parquet file of the Hugging Face layout is given.
"""

from __future__ import annotations

import argparse
import copy
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import evaluation, models
from absld_search.core.data import Batch, Split
from absld_search.core.logit_bank import Network
from absld_search.core.methods.absld import ABSLD
from absld_search.core.speed import Speed
from absld_search.core.trainer import Options, Schedule, Trainer
from absld_search.workloads import Augmentation
from benchmarks import timing
from benchmarks.options import RESULTS
from benchmarks.plain import PlainABSLD
from benchmarks.train_step import OurStep, Table, batch_of

LIMIT = 8.5 * 60  # seconds after which a part begins nothing new
GIGAFLOPS = {"resnet-18": 28.9, "mobilenet-v2": 4.74}  # an image, of a step with a warm bank (2 per multiply-add)
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # dense bf16


@dataclass(frozen=True)
class Size:
    """How much is run."""

    students: tuple[str, ...]
    teacher: str
    batch: int
    rounds: int
    images: int
    epochs: int
    attacked: int
    packed: tuple[int, ...]
    small: str


FULL = Size(("resnet-18", "mobilenet-v2"), "wrn-34-10", 128, 9, 50_000, 20, 2_000, (1, 2, 4, 8), "resnet-8-16")
TOY = Size(("resnet-8-4",), "resnet-8-4", 4, 2, 16, 2, 4, (1, 2), "resnet-8-4")


@dataclass(frozen=True)
class Setting:
    """Where, how much, on what."""

    size: Size
    device: str
    data: Path | None
    began: float
    toy: bool
    out: Path

    def keep(self, part: str, found: dict[str, Any]) -> None:
        """What there is so far: a part that is cut short leaves it."""
        timing.write(self.out, f"gpu-{part}", {"toy": self.toy, part: found})

    def late(self) -> bool:
        return time.monotonic() - self.began > LIMIT

    def clock(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TensorFloat-32 in convolutions and products inside, or strict single precision."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def within(allowed: bool, run: Callable[[], object]) -> Callable[[], object]:
    """`run` with TensorFloat-32 as said."""

    def wrapped() -> object:
        with tf32(allowed):
            return run()

    return wrapped


def images_of(setting: Setting, number: int) -> Split:
    """`number` images, ids counted from 0, in the crops and flips of CIFAR-10."""
    if setting.data is None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (number, 3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.arange(number) % 10
    else:
        pixels, labels = parquet(setting.data, number)
    rows = torch.arange(len(labels), device=setting.device)
    how = Augmentation(padding=4, flip=True)
    return Split(pixels.to(setting.device), labels.to(setting.device), rows, 10, how, rows)


def parquet(path: Path, number: int) -> tuple[Tensor, Tensor]:
    """The first images (n, 3, 32, 32), uint8, and labels (n,) of a file with columns img and label."""
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(path).slice(0, number).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor([row["label"] for row in rows])


def bank(setting: Setting, split: Split) -> Table:
    """Random logits for every image: what a warm bank costs to read, and nothing to make."""
    logits = torch.randn(len(split), 10, generator=torch.Generator().manual_seed(1))
    return Table((3 * logits).to(setting.device))


def step(setting: Setting) -> dict[str, Any]:
    """The plain step, then ours in every precision, compiled, replayed."""
    found: dict[str, Any] = {}
    for name in setting.size.students:
        if not setting.late():
            found[name] = one_student(setting, name)
            setting.keep("step", found)
    return found


def one_student(setting: Setting, name: str) -> dict[str, Any]:
    batch = batch_of(setting.size.batch, device=setting.device)
    student, teacher = (models.build(n, 10, 3, 0).to(setting.device) for n in (name, setting.size.teacher))
    plain = PlainABSLD(copy.deepcopy(student), teacher, 10)
    table = Table(Network(teacher).clean_logits(batch))

    def ours(**words: Any) -> Callable[[], object]:
        return OurStep(copy.deepcopy(student), table, batch, Speed(), Options(**words)).step

    half = {"precision": "bf16"}
    found = {
        "plain TF32": within(True, lambda: plain.step(batch.x, batch.y)),
        "plain fp32": within(False, lambda: plain.step(batch.x, batch.y)),
        "ours fp32": within(False, ours()),
        "ours TF32": within(True, ours()),
        "ours bf16": within(True, ours(**half)),
    }
    if not setting.toy:
        found["ours bf16 compiled"] = within(True, ours(**half, compile=True))
    if setting.device == "cuda":
        found["ours TF32 replayed"] = replayed(recordable(student, table, batch))
        found["ours bf16 replayed"] = replayed(recordable(student, table, batch, **half))
    ratios = timing.in_turns(found, setting.size.rounds, setting.clock)
    print(timing.table(f"{name}, batches of {setting.size.batch}", ratios), flush=True)
    return {"ratios": timing.plain(ratios), "share_of_peak": shares(name, setting.size.batch, ratios)}


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


def shares(name: str, batch: int, ratios: list[timing.Ratio]) -> dict[str, float]:
    """Arithmetic of a step with a warm bank over the GPU's peak in bf16 (MFU), where both are known."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    peak = next((value for known, value in PEAK.items() if known in gpu), None)
    if peak is None or name not in GIGAFLOPS:
        return {}
    return {found.variant: GIGAFLOPS[name] * 1e9 * batch / found.seconds / peak for found in ratios}


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
    taken: list[float] = []
    looks: list[float] = []
    while len(taken) < size.epochs and not setting.late():
        began = setting.clock()
        trainer.run_epoch()
        taken.append(setting.clock() - began)
        if len(taken) % 10 == 1:
            evaluation.evaluate(student, val, ("clean", "pgd20"), 8 / 255, 2 / 255)
            looks.append(setting.clock() - began - taken[-1])
    projected = (300 * sorted(taken)[len(taken) // 2] + 45 * sorted(looks)[len(looks) // 2]) / 60
    print(f"{len(taken)} epochs of {len(split)} images, median of one: {sorted(taken)[len(taken) // 2]:.2f} s; "
          f"300 epochs and 45 looks: {projected:.1f} minutes", flush=True)  # fmt: skip
    return {"epochs": taken, "looks": looks, "projected_minutes": projected}


def packing(setting: Setting) -> dict[str, Any]:
    """Images a second of k processes that share the device, each a small training of its own."""
    found: dict[str, float] = {}
    for number in setting.size.packed:
        if setting.late():
            break
        words = [sys.executable, "-m", "benchmarks.gpu", "one", *(["--toy"] if setting.toy else [])]
        running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(number)]
        rates = [float(process.communicate()[0].split()[-1]) for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError(f"one of {number} processes failed")
        found[str(number)] = sum(rates)
        print(f"{number} processes: {sum(rates):.0f} images a second", flush=True)
    return {"images_a_second": found, "gain": max(found.values()) / found["1"]}


def one(setting: Setting) -> dict[str, Any]:
    """One small training, for `packing`: prints its images a second over a fixed time."""
    torch.set_num_threads(1)
    batch = batch_of(setting.size.batch, device=setting.device)
    student = models.build(setting.size.small, 10, 3, 0).to(setting.device)
    ours = OurStep(student, Table(torch.randn(len(batch.y), 10, device=setting.device)), batch, Speed())
    for _ in range(3):
        ours.step()
    began, steps, seconds = setting.clock(), 0, 0.2 if setting.toy else 30.0
    while setting.clock() - began < seconds:
        ours.step()
        steps += 1
    print(steps * len(batch.y) / (setting.clock() - began))
    return {}


def autoattack(setting: Setting) -> dict[str, Any]:
    """Minutes of the standard AutoAttack, projected to 10,000 images of which as many stay robust.

    A random network has no robust images and would cost nothing: so a student is trained for an epoch or two first.
    """
    from pyautoattack import AutoAttack

    split = images_of(setting, setting.size.images)
    student = models.build(setting.size.students[0], 10, 3, 0).to(setting.device)
    schedule = Schedule(2, setting.size.batch, 0.1, 0.9, 2e-4, (), 0.1)
    method = ABSLD(label_source="label_smoothing", num_steps=2)  # needs no teacher
    Trainer(student, method, {}, split, schedule, 0, Options()).run(lambda end: None)
    rows = torch.arange(setting.size.attacked, device=setting.device)
    x, y = split.at(rows)[:2]
    found = {}
    for name, allowed in (("TF32", True), ("fp32", False)):
        if setting.late():
            break
        began = setting.clock()
        with tf32(allowed):
            robust = attacked(AutoAttack, student.eval(), x, y, setting)
        seconds = setting.clock() - began
        found[name] = {"seconds": seconds, "robust": robust, "projected_minutes": seconds * 10_000 / len(y) / 60}
        print(f"AutoAttack {name}: {len(y)} images, {robust:.1%} robust, {seconds:.0f} s", flush=True)
    return found


def attacked(attack: Any, student: nn.Module, x: Tensor, y: Tensor, setting: Setting) -> float:
    """Share of images that stay right under AutoAttack, 8/255."""
    version = {"version": "custom", "attacks": ["apgd-ce"]} if setting.toy else {"version": "standard"}
    found = attack(student, norm="Linf", eps=8 / 255, device=setting.device, seed=0, **version)
    x_adv, _ = found.run_standard_evaluation(x, y, batch_size=min(500, len(y)))
    with torch.no_grad():
        return float((student(x_adv).argmax(1) == y).float().mean())


PARTS = {"step": step, "epochs": epochs, "packing": packing, "autoattack": autoattack, "one": one}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--toy", action="store_true", help="small networks, few images: whether it runs")
    parser.add_argument("--data", type=Path, help="a CIFAR-10 Parquet file; random images without one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(words)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not asked.toy:
        parser.error("there is no GPU here; --toy runs everything small, to see that it runs")
    os.environ.setdefault("ABSLD_CACHE_DIR", str(asked.out / "cache"))  # of what is compiled; else platformdirs says
    setting = Setting(TOY if asked.toy else FULL, device, asked.data, time.monotonic(), asked.toy, asked.out)
    found = PARTS[asked.part](setting)
    if asked.part != "one":
        setting.keep(asked.part, found)
        print(asked.out / f"gpu-{asked.part}.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
