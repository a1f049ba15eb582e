"""How much faster is the evaluation than what was released, with the same verdicts?

Side by side on the same weights and images: PGD-20 against the releases' way (gradients of all parameters computed and
left), APGD-CE and AutoAttack against pyautoattack with the same seeds. Verdicts that differ are listed.

Goals: PGD-20 2.4x; APGD-CE 3.6x where most images are fooled (ResNet-18); AutoAttack 1.3x on digits.
Command: python -m benchmarks.evaluate --part digits CHECKPOINT...     (three trained digits students, 400 images)
         python -m benchmarks.evaluate --part cifar10-mini --data-dir DATA CHECKPOINT   (128 images)
         python -m benchmarks.evaluate --part resnet18 --data-dir DATA  (ResNet-18 of pyautoattack, 4/255)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from pyautoattack import AutoAttack
from torch import Tensor, nn

from absld_search import checkpoint_evaluation
from absld_search.core import attacks, data, evaluation
from absld_search.core.attack_names import ATTACKS
from absld_search.workloads import Workload, workload
from benchmarks import timing

SEED = evaluation.EVALUATION_SEED
SIZES = {"digits": 400, "cifar10-mini": 128, "resnet18": 32}


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
    click.echo(timing.table(title, ratios))
    first = next(iter(variants))
    differing = {name: _differing(seen[first], result, case) for name, result in seen.items() if name != first}
    left = seen[first] if isinstance(seen[first], Tensor) else list(seen[first].values())[-1]
    click.echo(f"  right after the attack: {int(left.sum())} of {len(left)}; verdicts that differ: {differing}")
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
    """The ResNet-18 that comes with pyautoattack, ordinarily trained: at 4/255 most images fall."""
    import pyautoattack
    from pyautoattack.examples.resnet import ResNet18

    model = ResNet18()
    weights = Path(pyautoattack.__path__[0]) / "examples" / "model_test.pt"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    split = data.load_test("cifar10", workload("cifar10").split, "cpu", str(data_dir.absolute())).first(n)
    split = replace(split, pixels=split.images, rows=None)
    return Case("ResNet-18", model.eval(), split, 4 / 255, 0.003)


@click.command()
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path))
@click.option("--part", type=click.Choice(list(SIZES)), default="digits", show_default=True)
@click.option("--images", type=int, help="[default: 400 digits, 128 of cifar10-mini, 32 for the ResNet-18]")
@click.option("--rounds", default=5, show_default=True, help="AutoAttack gets three at most.")
@click.option("--no-autoattack", is_flag=True, help="PGD-20 and APGD-CE alone.")
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="ABSLD_DATA_DIR", default=Path("data"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/benchmarks"), show_default=True)
def main(
    checkpoints: tuple[Path, ...], part: str, images: int | None, rounds: int, no_autoattack: bool, data_dir: Path,
    out: Path,
) -> None:  # fmt: skip
    """Compare on each checkpoint and write OUT/evaluate-PART.json."""
    torch.set_num_threads(1)
    n = images or SIZES[part]
    if part == "resnet18":
        cases = [resnet18(n, data_dir)]
    else:
        cases = [of_checkpoint(path, workload(part), n, data_dir) for path in checkpoints]
    if not cases:
        raise click.UsageError("give the checkpoints of trained students")
    found = [compare(case, rounds, not no_autoattack) for case in cases]
    click.echo(str(timing.write(out, f"evaluate-{part}", {"cases": found})))


if __name__ == "__main__":
    main()
