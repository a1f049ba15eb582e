"""How much faster is the evaluation than what was released, with the same verdicts?

Side by side on the same weights and images: PGD-20 against the releases' way (gradients of all parameters computed and
left), APGD-CE and AutoAttack against pyautoattack with the same seeds. Verdicts that differ are listed.

Goals: PGD-20 2.4x; APGD-CE 3.6x where most images are fooled (ResNet-18); AutoAttack 1.3x on digits.
Command: python -m benchmarks.evaluate [--short]                        (a digits student trained here, and resnet18)
         python -m benchmarks.evaluate --part digits CHECKPOINT...      (digits of trained students)
         python -m benchmarks.evaluate --part cifar10-mini CHECKPOINT   (128 images)
         python -m benchmarks.evaluate --part resnet18                  (ResNet-18 of pyautoattack, 1.5/255)
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pyautoattack import AutoAttack
from torch import Tensor, nn

from absld_search import checkpoint_evaluation
from absld_search.core import attacks, data, evaluation
from absld_search.core.attack_names import ATTACKS
from absld_search.core.config import TrialConfig
from absld_search.core.trial import run_trial
from absld_search.workloads import Workload, workload
from benchmarks import timing
from benchmarks.options import DATA, parser

SEED = evaluation.EVALUATION_SEED
SIZES = {"digits": 400, "cifar10-mini": 128, "resnet18": 32}
SHORT = {"digits": 32, "cifar10-mini": 32, "resnet18": 8}  # with --short


@dataclass(frozen=True)
class Case:
    """A network, the images it is asked about, and how far an attack may go."""

    name: str
    model: nn.Module
    split: data.Split
    eps: float
    step_size: float


def released_pgd(case: Case, noise: Tensor) -> Tensor:
    """PGD-20 the way the releases evaluate: `backward` through input and parameters, all images to the last step."""
    x, y = case.split.images, case.split.labels
    x_adv = (x + noise).clamp(0, 1).requires_grad_(True)
    for _ in range(20):
        for parameter in case.model.parameters():
            parameter.grad = None
        with torch.enable_grad():
            F.cross_entropy(case.model(x_adv), y).backward()
        assert x_adv.grad is not None
        moved = x_adv.detach() + case.step_size * x_adv.grad.sign()
        offset = (moved - x).clamp(-case.eps, case.eps)
        x_adv = (x + offset).clamp(0, 1).requires_grad_(True)
    return verdicts(case, x_adv)


@torch.no_grad()
def verdicts(case: Case, x: Tensor) -> Tensor:
    """(N,): who is right."""
    found: Tensor = case.model(x).argmax(1) == case.split.labels
    return found


def package(case: Case, stages: tuple[str, ...]) -> dict[str, Tensor]:
    """pyautoattack's verdicts after each stage of its standard version: {stage: (N,)}."""
    x, y, left = case.split.images, case.split.labels, torch.arange(len(case.split))
    found = {}
    for stage in stages:
        with torch.random.fork_rng():
            attack = AutoAttack(case.model, eps=case.eps, seed=SEED)
            attack.attacks_to_run = [stage]  # the seed is set anew for each batch, so stages may run one by one
            if len(left):
                _, answers = attack.run_standard_evaluation(x[left], y[left])
                left = left[answers == y[left]]
        found[stage] = torch.zeros(len(y), dtype=torch.bool).index_fill(0, left, True)
    return found


def ours(case: Case, stages: tuple[str, ...], folded: bool = False) -> dict[str, Tensor]:
    """Our verdicts after each stage, with the package's random numbers."""
    run = evaluation._Run(case.model, evaluation.Asked(case.split, case.eps, case.step_size, seed=SEED))
    how = attacks.frozen_batch_norm(case.model) if folded else nullcontext()
    with how, attacks.inputs_only(case.model):
        return {stage: run.after("batch", stages[: at + 1]) for at, stage in enumerate(stages)}


def versions(case: Case, stages: tuple[str, ...]) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """The package's, ours to the bit of every logit, and ours with batch norm folded, which rounds otherwise."""
    return {
        "pyautoattack": lambda: package(case, stages),
        "ours": lambda: ours(case, stages),
        "ours, folded": lambda: ours(case, stages, folded=True),
    }


def pgd_variants(case: Case) -> dict[str, Callable[[], Tensor]]:
    """The released way, ours to the last iterate, and ours with fooled images leaving."""
    draws = attacks.ImageDraws(case.split.ids, SEED)
    rows = torch.arange(len(case.split))
    noise = (2 * draws.per_image(rows, case.split.image_shape) - 1) * case.eps
    x, y = case.split.images, case.split.labels

    def of(drop: bool) -> Tensor:
        with attacks.inputs_only(case.model):
            points = attacks.Pgd(20, case.step_size, drop=drop)(case.model, x, y, case.eps, draws)
            return verdicts(case, points)

    return {"released": lambda: released_pgd(case, noise), "last iterate": lambda: of(False), "drop": lambda: of(True)}


def compare(case: Case, rounds: int, full: bool) -> dict[str, Any]:
    """Times and differing verdicts of one case, printed and for JSON."""
    stages = ATTACKS["aa"].stages
    found: dict[str, Any] = {"case": case.name, "images": len(case.split), "eps": case.eps}
    pgd = pgd_variants(case)
    found["pgd20"] = _part(f"{case.name}: PGD-20", pgd, rounds, case)
    ce = versions(case, stages[:1])
    found["apgd-ce"] = _part(f"{case.name}: APGD-CE", ce, rounds, case)
    if full:
        aa = versions(case, stages)
        found["aa"] = _part(f"{case.name}: AutoAttack, standard", aa, 1 if rounds < 3 else 3, case)
    return found


def _part(title: str, variants: dict[str, Callable[[], Any]], rounds: int, case: Case) -> dict[str, Any]:
    """One comparison: verdicts of the first run of each, then times in turns."""
    seen: dict[str, Any] = {}

    def kept(name: str) -> Callable[[], None]:
        return lambda: seen.__setitem__(name, variants[name]())

    ratios = timing.in_turns({name: kept(name) for name in variants}, rounds)
    print(timing.table(title, ratios))
    first = next(iter(variants))
    differing = {name: _differing(seen[first], result, case) for name, result in seen.items() if name != first}
    left = seen[first] if isinstance(seen[first], Tensor) else list(seen[first].values())[-1]
    print(f"  right after the attack: {int(left.sum())} of {len(left)}; verdicts that differ: {differing}")
    return {"ratios": timing.plain(ratios), "right": int(left.sum()), "differing": differing}


def _differing(one: Any, other: Any, case: Case) -> dict[str, list[int]]:
    """{stage: ids of the images on which two variants disagree}."""
    pairs = {"": (one, other)} if isinstance(one, Tensor) else {stage: (one[stage], other[stage]) for stage in one}
    return {stage or "verdict": case.split.ids[a != b].tolist() for stage, (a, b) in pairs.items()}


def of_checkpoint(path: Path, setting: Workload, n: int, data_dir: Path) -> Case:
    """A trained student on the first n test images."""
    num_classes, channels, size = data.shape(setting.dataset)
    model, _ = checkpoint_evaluation.network(path, setting.student, num_classes, channels, size, setting.dataset)
    split = data.load_test(setting.dataset, setting.split, "cpu", str(data_dir.absolute())).first(n)
    split = replace(split, pixels=split.images, rows=None)
    return Case(f"{setting.name} {path.parent.name[:8]}", model.eval(), split, setting.eps, setting.eval_step_size)


def resnet18(n: int, data_dir: Path) -> Case:
    """The ResNet-18 that comes with pyautoattack, ordinarily trained. At this radius three of four images fall, as they
    do of a robust network at 8/255; at 4/255 all would, and dropping what has fallen would be all there is to see."""
    import pyautoattack
    from pyautoattack.examples.resnet import ResNet18

    model = ResNet18()
    weights = Path(pyautoattack.__path__[0]) / "examples" / "model_test.pt"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    split = data.load_test("cifar10", workload("cifar10").split, "cpu", str(data_dir.absolute())).first(n)
    split = replace(split, pixels=split.images, rows=None)
    return Case("ResNet-18", model.eval(), split, 1.5 / 255, 0.001)


def trained(folder: Path) -> Path:
    """A digits student trained by TRADES, seconds of work: for whoever brings no checkpoint."""
    config = TrialConfig.from_words({"method": "trades"}, "digits")
    run_trial(config, folder, lambda *_: None)
    return folder / "model.safetensors"


def cases_of(told: argparse.Namespace, part: str) -> Iterator[Case]:
    """What is compared, one after the other, so that it need not all be in memory."""
    n = told.images or (SHORT if told.short else SIZES)[part]
    if part == "resnet18":
        yield resnet18(n, told.data_dir)
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in told.checkpoints or [trained(Path(folder) / "trades")]:
            yield of_checkpoint(path, workload(part), n, told.data_dir)


def parts_of(told: argparse.Namespace) -> list[str]:
    """The part that was named, or what needs no checkpoint: digits and, in full and where its images are, resnet18."""
    if told.part:
        return [told.part]
    return ["digits", *(["resnet18"] if not told.short and (told.data_dir / "cifar10").is_dir() else [])]


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parts = parser(__doc__, ("--rounds", int, 5, "one with --short; AutoAttack gets three at most"),
                   ("--data-dir", Path, DATA, "where CIFAR-10 lies"))  # fmt: skip
    parts.add_argument("checkpoints", nargs="*", type=Path, help="of trained students; digits trains one without")
    parts.add_argument("--part", choices=SIZES, help="one alone; without, digits and, in full, resnet18")
    parts.add_argument("--images", type=int, help=f"how many; {SIZES}, with --short {SHORT}")
    parts.add_argument("--no-autoattack", action="store_true", help="PGD-20 and APGD-CE alone")
    told = parts.parse_args(words)
    if told.part == "cifar10-mini" and not told.checkpoints:
        parts.error("--part cifar10-mini needs the checkpoints of trained students")
    told.rounds = 1 if told.short else told.rounds
    return told


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    for part in parts_of(told):
        found = [compare(case, told.rounds, not told.no_autoattack) for case in cases_of(told, part)]
        print(timing.write(told.out, f"evaluate-{part}", {"cases": found}))


if __name__ == "__main__":
    main()
