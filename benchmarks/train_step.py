"""One training step of ABSLD, ours against the plain one, and the gate that our short cuts change no number.

python -m benchmarks.train_step [gate|small|resnet18|mobilenet|compile|all] [--short] [--rounds 9] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import models, speed
from absld_search.core.data import Batch, Split
from absld_search.core.logit_bank import Count, Network
from absld_search.core.losses import ClassMeans
from absld_search.core.methods.absld import ABSLD
from absld_search.core.speed import Speed
from absld_search.core.trainer import Options, Schedule, Trainer
from benchmarks import timing
from benchmarks.options import parser
from benchmarks.plain import PlainABSLD

NONE = Speed(**dict.fromkeys(speed.EXACT, False))
SWITCHES = {
    "nothing": NONE,
    "folded batch norm": replace(NONE, fold=True),
    "channels_last": replace(NONE, channels_last=True),
    "folded, minimal filters": replace(NONE, fold=True, minimal_filters=True),
    "closed-form gradient": replace(NONE, closed_form=True),
    "all of them": Speed(),
}
OPTIONS = Options()
GATED = {"resnet-8-16": 8, "resnet-18": 2, "mobilenet-v2": 2}  # model -> batch size


class Table:
    """A warm stand-in for the logit bank: the teacher's logits by image id."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.count = logits, Count()

    def start_epoch(self, number: int) -> None:
        """It has all epochs already."""

    def clean_logits(self, batch: Batch) -> Tensor:
        return self.logits[batch.index]

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError("a table knows no gradient")


class OurStep:
    """What the trainer does with a batch, by the trainer itself."""

    def __init__(
        self, student: nn.Module, teacher: Network | Table, batch: Batch, how: Speed,
        options: Options = OPTIONS, num_steps: int = 10,
    ) -> None:  # fmt: skip
        self.student, self.batch = student, batch
        self.method = ABSLD(coupling="product", risk_aggregation="sum", num_steps=num_steps)
        split, schedule = Split(batch.x, batch.y, batch.index, 10), Schedule(1, len(batch.y), 0.1, 0.9, 2e-4, (), 0.1)
        self.trainer = Trainer(student, self.method, {"robust": teacher}, split, schedule, 0, options, how=how)
        self.means = ClassMeans(10, batch.x.device)
        student.train()

    def step(self) -> None:
        """The batch once more; the loss stays on the device."""
        self.trainer._step(self.method, self.means, self.batch)


@dataclass(frozen=True)
class Difference:
    """One step with some short cuts against the plain step, in double precision, relative L2."""

    model: str
    switch: str
    gradient: float
    loss: float
    buffers: float


def batch_of(size: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Batch:
    """Noise with labels of every class."""
    x = torch.rand(size, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(size) % 10
    return Batch(x.to(device, dtype), y.to(device), torch.arange(size, device=device), torch.zeros_like(y).to(device))


def gate(
    name: str, batch_size: int, num_steps: int = 10, only: Sequence[str] = (), disturb: float = 0.0
) -> list[Difference]:
    """Every exact switch (or `only` those), and the table for the teacher, in one whole step of the model `name`.

    `disturb` moves a weight of ours by so much, to see that the gate would notice.
    """
    student, teacher = models.build(name, 10, 3, 0).double(), models.build("resnet-8-16", 10, 3, 1).double().eval()
    settle(student)
    speed.choose(teacher, NONE)
    batch = batch_of(batch_size, torch.float64)
    plain = PlainABSLD(copy.deepcopy(student), teacher, 10, num_steps=num_steps)
    torch.manual_seed(5)
    wanted = plain.loss(batch.x, batch.y)
    wanted.backward()
    found = []
    table = Table(Network(teacher).clean_logits(batch))
    for switch, how in {**SWITCHES, "teacher from a table": NONE, "all, from a table": Speed()}.items():
        if only and switch not in only:
            continue
        asked = table if "table" in switch else Network(teacher)
        ours = OurStep(copy.deepcopy(student), asked, batch, how, num_steps=num_steps)
        next(ours.student.parameters()).data[0] += disturb
        torch.manual_seed(5)
        loss, _ = ours.method.step(ours.student, {"robust": asked}, batch)
        loss.backward()
        grads = apart([p.grad for p in ours.student.parameters()], [p.grad for p in plain.student.parameters()])
        buffers = apart(list(ours.student.buffers()), list(plain.student.buffers()))
        found.append(Difference(name, switch, grads, apart([loss.detach()], [wanted.detach()]), buffers))
        print(f"{name:<13} {switch:<21} gradient {grads:.1e}  buffers {buffers:.1e}", flush=True)
    return found


def settle(student: nn.Module) -> None:
    """Running statistics as a trained network has them: not those of the start, which fold to nothing."""
    generator = torch.Generator().manual_seed(3)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            mean, variance = module.get_buffer("running_mean"), module.get_buffer("running_var")
            mean.copy_(0.2 * torch.randn(mean.shape, generator=generator, dtype=torch.float64))
            variance.copy_(0.5 + torch.rand(mean.shape, generator=generator, dtype=torch.float64))


def apart(mine: list[Tensor | None], theirs: list[Tensor | None]) -> float:
    """Relative L2 distance of two lists of tensors."""
    pairs = [(a.double(), b.double()) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    distance = sum(float((a - b).square().sum()) for a, b in pairs)
    return (distance / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


@dataclass(frozen=True)
class Case:
    """A student, its teacher, and what there is to reach."""

    student: str
    teacher: str
    batch_size: int
    goals: dict[str, float]


CASES = {
    "small": Case("resnet-8-16", "wrn-34-10", 64, {"fp32": 13.0, "bf16": 20.0}),
    "resnet18": Case("resnet-18", "wrn-34-10", 32, {"fp32": 1.5, "bf16": 2.7}),
    "mobilenet": Case("mobilenet-v2", "wrn-34-10", 16, {"fp32": 2.6}),
}


def variants(case: Case, compiled: bool, device: str = "cpu") -> dict[str, Callable[[], object]]:
    """The plain step, and ours in every precision that has a goal."""
    batch = batch_of(case.batch_size, device=device)
    student, teacher = (models.build(n, 10, 3, seed).to(device) for seed, n in enumerate((case.student, case.teacher)))
    plain = PlainABSLD(copy.deepcopy(student), teacher, 10)
    table = Table(Network(teacher).clean_logits(batch))
    found: dict[str, Callable[[], object]] = {"plain": lambda: plain.step(batch.x, batch.y)}
    for precision in case.goals:
        for compile in (False, True) if compiled else (False,):
            options = Options(precision=precision, compile=compile)
            name = f"ours {precision}" + (" compiled" if compile else "")
            found[name] = OurStep(copy.deepcopy(student), table, batch, Speed(), options).step
    return found


def compare(name: str, rounds: int, compiled: bool) -> dict[str, object]:
    """Time one case in turns, print it, give it back for JSON."""
    case = CASES[name]
    ratios = timing.in_turns(variants(case, compiled), rounds)
    title = f"{case.student}, teacher {case.teacher}, batches of {case.batch_size}, one thread, goals {case.goals}"
    print(timing.table(title, ratios), flush=True)
    return {"title": title, "goals": case.goals, "ratios": timing.plain(ratios)}


COMPILING = """
import sys
from benchmarks.train_step import first_step
print(first_step(sys.argv[1]))
"""


def first_step(name: str) -> float:
    """Seconds until the first step of a compiled student is done, imports and data not counted."""
    batch, student = batch_of(8), models.build(name, 10, 3, 0)
    ours = OurStep(student, Table(torch.randn(8, 10)), batch, Speed(), Options(compile=True))
    began = time.perf_counter()
    ours.step()
    return time.perf_counter() - began


def compiling(name: str = "resnet-8-16") -> dict[str, object]:
    """A second trial's compilation, in a process of its own, against the first's; the cache folder is shared."""
    with tempfile.TemporaryDirectory() as folder:
        around = {**os.environ, "ABSLD_CACHE_DIR": folder}
        around.pop("TORCHINDUCTOR_CACHE_DIR", None)  # what a case before it has set would be warm
        words = [sys.executable, "-c", COMPILING, name]
        first, second = (
            float(subprocess.run(words, env=around, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
            for _ in range(2)
        )
    print(f"{name}: first compilation {first:.1f} s, a second trial's {second:.1f} s, {second / first:.0%} (goal 15%)")
    return {"model": name, "first_seconds": first, "second_seconds": second, "share": second / first}


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parts = parser(__doc__, ("--rounds", int, 9, "in turns; three with --short"))
    parts.add_argument("what", nargs="?", default="all", choices=["all", "gate", "compile", *CASES],
                       help="with --short all means the gate and the small student")  # fmt: skip
    parts.add_argument("--compile", action="store_true", help="also compiled, which takes minutes the first time")
    return parts.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    told = asked(words)
    everything = ["gate", "small"] if told.short else ["gate", *CASES, "compile"]
    chosen = everything if told.what == "all" else [told.what]
    rounds = 3 if told.short else told.rounds
    found: dict[str, Any] = {}
    if "gate" in chosen:
        found["gate"] = [vars(each) for model, size in GATED.items() for each in gate(model, size)]
    found |= {name: compare(name, rounds, told.compile) for name in chosen if name in CASES}
    if "compile" in chosen:
        found["compile"] = compiling()
    print(timing.write(told.out, "train_step", found))
    return int(any(each["gradient"] > 1e-12 or each["buffers"] > 1e-12 for each in found.get("gate", [])))


if __name__ == "__main__":
    raise SystemExit(main())
