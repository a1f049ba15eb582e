"""How well do cheap attacks stand in for AutoAttack? Digits students, measured with each, against AutoAttack.

Question: which attack may a search use in AutoAttack's place? Students differ in method, temperatures, length and seed.
Passes are counted: images that went forward through the network plus images that went backward.

Expected: APGD-CE with APGD-T towards three targets costs a tenth of the passes and orders the students alike.
Cost: about a minute of one core a student, training included; cached in --cache, so a killed run goes on.
Command: python -m benchmarks.proxies --cache runs/proxies
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
import safetensors.torch
import torch
from scipy import stats
from torch import Tensor, nn

from absld_search.core import data, evaluation, metrics, models, teacher_making, trial
from absld_search.core.attack_names import ATTACKS
from absld_search.core.config import TrialConfig
from absld_search.core.files import write_atomic
from absld_search.workloads import DIGITS
from benchmarks import timing

matplotlib.use("Agg")

PROXIES = ("pgd20", "cw20", "pgd20-confused", "apgd-ce", "apgd-lowest4", "apgd-adaptive", "apgd-top3", "apgd")
REFERENCE = "aa"
TEACHER = "trades-narrow"
RECIPES: tuple[dict[str, Any], ...] = (
    {"method": "sat"},
    {"method": "sat", "epochs": 12},
    {"method": "trades"},
    {"method": "trades", "epochs": 12},
    {"method": "dafa"},
    {"method": "rslad", "teacher": TEACHER},
    {"method": "absld", "teacher": TEACHER},
    {"method": "absld", "teacher": TEACHER, "temperature_lr": 0.3},
    {"method": "absld", "teacher": TEACHER, "epochs": 12},
    {"method": "absld", "teacher": TEACHER, "initial_temperature_adv": 2.0},
)
READING = "\n## Reading\n"
RESAMPLED = 10_000


class Counted(nn.Module):
    """A network that counts the images which go through it, forward and backward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.passes = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        logits: Tensor = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._backward(len(gradient)))
        return logits

    def _backward(self, images: int) -> None:
        self.passes += images


def measured(config: TrialConfig, split: data.Split, cache: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """One student: {attack: {"passes", "correct"}}; trained and evaluated once, attack by attack."""
    path = cache / f"{config.key}-{len(split)}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    asked = ("clean", *PROXIES, REFERENCE)
    if set(asked) <= set(found):
        return found
    model = Counted(student(config, cache))
    for name in (name for name in asked if name not in found):
        model.passes = 0
        (outcome,) = evaluation.evaluate(model, split, (name,), DIGITS.eps, DIGITS.eval_step_size)
        found[name] = {"passes": model.passes, "correct": outcome.correct.astype(int).tolist()}
        write_atomic(path, json.dumps(found).encode())
    say(f"{config.method} {config.key}: " + "  ".join(f"{k} {np.mean(v['correct']):.3f}" for k, v in found.items()))
    return found


def student(config: TrialConfig, cache: Path) -> nn.Module:
    """The trained network of a configuration."""
    folder = cache / "students" / config.key
    trial.run_trial(config, folder, lambda epoch, metrics: None)
    model = models.build(DIGITS.student, 10, 1, config.seed, size=8)
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    return model


def balanced(split: data.Split, per_class: int) -> data.Split:
    """The first images of each class."""
    places = [torch.nonzero(split.labels == label)[:per_class, 0] for label in range(split.num_classes)]
    return split.part(torch.cat(places).sort().values)


def row(name: str, students: Sequence[dict[str, Any]], labels: np.ndarray) -> dict[str, Any]:
    """One attack against the reference, over students: passes, gaps in points, rank correlations with intervals."""

    def of(attack: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        classes = [metrics.class_accuracies(found[attack]["correct"], labels, 10)[0] for found in students]
        mean = np.array([np.mean(found[attack]["correct"]) for found in students])
        return mean, np.array([lowest.min() for lowest in classes]), np.array([lowest.argmin() for lowest in classes])

    passes = np.array([[found[attack]["passes"] for attack in (name, REFERENCE)] for found in students])
    (mean, worst, which), (true_mean, true_worst, true_which) = of(name), of(REFERENCE)
    whole = name != "apgd-lowest4"  # its mean mixes two attacks
    return {
        "attack": name,
        "passes": passes[:, 0].mean() / len(labels),
        "cheaper": passes[:, 1].sum() / passes[:, 0].sum(),
        "gap": spread(100 * (mean - true_mean)) if whole else None,
        "spearman": correlation(mean, true_mean) if whole else None,
        "worst_gap": spread(100 * (worst - true_worst)),
        "worst_spearman": correlation(worst, true_worst),
        "same_worst": float(np.mean(which == true_which)),
    }


def spread(values: np.ndarray) -> list[float]:
    """[mean, standard deviation, largest]."""
    return [float(values.mean()), float(values.std(ddof=1)), float(values.max())]


def correlation(found: np.ndarray, true: np.ndarray) -> list[float]:
    """[Spearman's rank correlation, and its 95 % percentile interval over students drawn again]."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(found), size=(RESAMPLED // 5, len(found)))
    again = [stats.spearmanr(found[rows], true[rows]).statistic for rows in drawn]
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return [float(stats.spearmanr(found, true).statistic), float(low), float(high)]


def page(rows: Sequence[dict[str, Any]], students: Sequence[dict[str, Any]], labels: np.ndarray) -> str:
    """The table as Markdown, with what was measured and how."""
    own = np.array([np.mean(found[REFERENCE]["correct"]) for found in students])
    head = "| attack | passes an image | cheaper | gap | Spearman | worst class: gap | Spearman | same class |"
    lines = [head, "| --- " * 8 + "|", *(_line(found) for found in rows)]
    machine = timing.machine()
    return f"""# Cheap attacks in AutoAttack's place

{machine["date"]}, `python -m benchmarks.proxies`: {len(students)} digits students of {len(RECIPES)} recipes,
{len(labels)} test images, the same number of each class; radius {DIGITS.eps}; torch {machine["torch"]}. Under AA
the students keep {100 * own.mean():.1f} % (from {100 * own.min():.1f} to {100 * own.max():.1f}).

A pass is an image that goes forward through the network or backward. `cheaper`: AutoAttack's passes over the attack's.
`gap`: accuracy under the attack minus accuracy under AutoAttack, in points, mean ± standard deviation over
students, (largest). Spearman: rank correlation with AutoAttack over students, with a 95 % percentile interval
(students drawn again, {RESAMPLED // 5:,} times). `same class`: share of students whose worst class is AutoAttack's.

{chr(10).join(lines)}

{chr(10).join(f"* `{name}`: {ATTACKS[name].meaning}." for name in (*PROXIES, REFERENCE))}

`apgd-lowest4` speaks of the worst class alone, so it has no gap and no rank in the mean.

![Cheap attacks against AutoAttack](images/proxies.png)
"""


def _reading(path: Path) -> str:
    """What a person wrote below the table last time: a new measurement does not throw it away."""
    before, mark, reading = path.read_text(encoding="utf-8").partition(READING) if path.exists() else ("", "", "")
    return mark + reading


def _line(found: dict[str, Any]) -> str:
    gap, worst = (_points(found[name]) for name in ("gap", "worst_gap"))
    rank, worst_rank = (_rank(found[name]) for name in ("spearman", "worst_spearman"))
    cells = (f"`{found['attack']}`", f"{found['passes']:.0f}", f"{found['cheaper']:.1f}x", gap, rank, worst, worst_rank)
    return f"| {' | '.join(cells)} | {100 * found['same_worst']:.0f} % |"


def _points(values: list[float] | None) -> str:
    return "" if values is None else f"{values[0]:.2f} ± {values[1]:.2f} ({values[2]:.1f})"


def _rank(values: list[float] | None) -> str:
    return "" if values is None else f"{values[0]:.3f} ({values[1]:.3f} to {values[2]:.3f})"


def picture(path: Path, students: Sequence[dict[str, Any]], labels: np.ndarray) -> None:
    """Accuracy under each attack against accuracy under AutoAttack, a point a student; mean and worst class."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained")

    def worst(found: dict[str, Any], name: str) -> float:
        return float(metrics.class_accuracies(found[name]["correct"], labels, 10)[0].min())

    views = (("robust accuracy", lambda found, name: np.mean(found[name]["correct"])), ("worst class", worst))
    for axis, (title, value) in zip(axes, views, strict=True):
        for name, marker in zip(PROXIES, "osv^*XDP", strict=True):
            if title != "worst class" and name == "apgd-lowest4":
                continue
            points = [(100 * value(found, REFERENCE), 100 * value(found, name)) for found in students]
            axis.plot(*zip(*points, strict=True), marker, label=name, alpha=0.7, markersize=5)
        ends = [*axis.get_xlim()]
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set(title=title, xlabel="under AutoAttack, %", ylabel="under the attack, %")
    axes[1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), default=Path("runs/proxies"), show_default=True)
@click.option("--docs", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Students of each recipe.")
@click.option("--per-class", default=30, show_default=True, help="Test images of each class.")
@click.option("--finished", is_flag=True, help="Write the page from what is cached already.")
def main(cache: Path, docs: Path, seeds: int, per_class: int, finished: bool) -> None:
    """Measure, then write docs/proxies.md and its picture."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    split = balanced(data.load_test("digits", DIGITS.split, "cpu"), per_class)
    labels = split.labels.numpy()
    configs = [TrialConfig.from_words(recipe, "digits", seed) for seed in range(seeds) for recipe in RECIPES]
    if finished:
        known = [cache / f"{config.key}-{len(split)}.json" for config in configs]
        students = [json.loads(path.read_text()) for path in known if path.exists()]
        students = [found for found in students if REFERENCE in found]
    else:
        teacher_making.ensure_teacher(DIGITS, TEACHER, "cpu", click.echo)
        students = [measured(config, split, cache, click.echo) for config in configs]
    rows = [row(name, students, labels) for name in (*PROXIES, REFERENCE)]
    timing.write(cache, "proxies", {"students": len(students), "images": len(labels), "rows": rows})
    write_atomic(docs / "proxies.md", (page(rows, students, labels) + _reading(docs / "proxies.md")).encode())
    picture(docs / "images" / "proxies.png", students, labels)
    click.echo((docs / "proxies.md").read_text())


if __name__ == "__main__":
    main()
