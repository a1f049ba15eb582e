"""Any checkpoint's accuracies under attack: from a file to a JSON, and the verdicts as a Parquet table."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from absld_search.core import data, files, metrics, models, records, results, teacher_files, verdicts
from absld_search.core.attack_names import ATTACKS, KINDS, STRENGTH, canonical, strongest
from absld_search.core.evaluation import Outcome, Progress, evaluate
from absld_search.search import stats
from absld_search.words import UsageError
from absld_search.workloads import Workload, workload

FORMAT = 2  # raised when the JSON changes its form
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Request:
    """What is asked, in the command line's words."""

    checkpoint: Path
    workload: str
    model: str | None
    attacks: tuple[str, ...]
    split: str
    images: int | None
    seed: int
    source: Path | None
    device: str
    data_dir: Path


def run(asked: Request, out: Path, progress: Progress = lambda stage, done, total: None) -> dict[str, Any]:
    """Evaluate, write `evaluation.json` and `images.parquet` into `out`, return the former's content.

    A killed evaluation goes on where it was. Raises: UsageError before anything is created; NonFiniteLogits.
    """
    setting = workload(asked.workload)
    names = tuple(dict.fromkeys(canonical(name) for name in asked.attacks))
    if not names:
        raise UsageError("--attacks names no attack.")
    if "transfer" in names and asked.source is None:
        raise UsageError("attack 'transfer' needs --source, the checkpoint whose examples it hands over.")
    if not os.path.isfile(out / EVALUATION):  # one that is there is answered from, wherever it lies
        files.require_writable("--out", out)
    num_classes, channels, size = data.shape(setting.dataset)
    facts = (asked.model or setting.student, num_classes, channels, size, setting.dataset)
    model, digest = network(asked.checkpoint, *facts)
    source = network(asked.source, *facts)[0].to(asked.device).eval() if asked.source else None
    split = _split(asked, setting)
    head = described(asked, setting, digest, len(split))
    if (known := _known(out, head, names)) is not None:
        return known
    model = model.to(asked.device).eval()
    tensors = (split.images, split.labels, *(source.state_dict().values() if source else ()))
    of = verdicts.identity(model, *tensors, eps=setting.eps, step=setting.eval_step_size, seed=asked.seed)
    store = verdicts.Store(out, of)
    more = {"seed": asked.seed, "store": store, "source": source, "progress": progress}
    found = evaluate(model, split, names, setting.eps, setting.eval_step_size, **more)
    content = {**head, **summary(found, data.class_names(setting.dataset, str(asked.data_dir)))}
    results.write_images(out / "images.parquet", records.image_rows(digest[:16], {asked.split: found}))
    results.write_json(out / EVALUATION, content)
    store.clear()
    return content


def _known(out: Path, head: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any] | None:
    """The same evaluation, if it lies in `out` already. Raises: UsageError where another does, or nothing can lie."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = json.loads((out / EVALUATION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"--out: {out} cannot be used ({error}).") from None
    same = {name: head[name] for name in ("sha256", "architecture", "workload", "split", "images", "seed")}
    if {name: found.get(name) for name in same} == same and tuple(found.get("attacks", ())) == names:
        return dict(found)
    raise UsageError(
        f"--out: {out} holds another evaluation ({found.get('split')}, {', '.join(found.get('attacks', ()))}); "
        f"it stays as it is. Name another folder, as --out {_free(out)}."
    )


def _free(out: Path) -> Path:
    """The first of OUT-2, OUT-3, ... that is not there."""
    return next(place for n in itertools.count(2) if not (place := out.with_name(f"{out.name}-{n}")).exists())


def network(path: Path, name: str, num_classes: int, channels: int, size: int, dataset: str) -> tuple[nn.Module, str]:
    """The network in a file, with all checks of core/teacher_files, and the file's sha256. Raises: UsageError."""
    if not path.is_file():
        raise UsageError(f"checkpoint {path} is not there.")
    state, digest = teacher_files.read(path)
    built = models.build(name, num_classes, channels, seed=0, size=size)
    try:
        return teacher_files.into(built, state, path, num_classes, dataset), digest
    except teacher_files.OtherNetwork as error:
        raise UsageError(f"{error} It was read as a {name}; --model names another network.") from None


def _split(asked: Request, setting: Workload) -> data.Split:
    where = (setting.dataset, setting.split, asked.device, str(asked.data_dir.absolute()))
    split = data.load_test(*where) if asked.split == "test" else data.load(*where)[1]
    return split if asked.images is None else split.first(asked.images)


def described(asked: Request, setting: Workload, digest: str, n: int) -> dict[str, Any]:
    """What was measured; the first names are RobustBench's."""
    return {
        "format": FORMAT,
        "name": asked.checkpoint.stem,
        "dataset": setting.dataset,
        "threat_model": "Linf",
        "eps": radius(setting.eps),
        "architecture": asked.model or setting.student,
        "sha256": digest,
        "workload": setting.name,
        "split": asked.split,
        "images": n,
        "seed": asked.seed,
        "step_size": setting.eval_step_size,
        "date": date.today().isoformat(),
        "torch": torch.__version__,
    }


def radius(eps: float) -> str:
    """8/255 as people write it where it is one, else the number."""
    in_levels = Fraction(eps * 255).limit_denominator(4)
    whole = in_levels.denominator == 1 and math.isclose(in_levels / 255, eps, rel_tol=1e-9)
    return f"{in_levels.numerator}/255" if whole else f"{eps:g}"


def summary(outcomes: list[Outcome], classes: tuple[str, ...]) -> dict[str, Any]:
    """Accuracies (fractions) per attack and class, under all of them at once, and in RobustBench's words (percent)."""
    by_name = {outcome.attack: outcome for outcome in outcomes}
    first = outcomes[0]
    everything = np.logical_and.reduce([outcome.correct for outcome in outcomes])
    together = Outcome("conjunction", first.ids, first.labels, everything, first.num_classes)
    entries = _classes({**by_name, "conjunction": together}, classes)
    found: dict[str, Any] = {
        "attacks": {name: {"meaning": ATTACKS[name].meaning, **numbers(outcome)} for name, outcome in by_name.items()},
        "conjunction": numbers(together),
        "strongest": strongest(by_name) if set(by_name) & set(STRENGTH) else next(iter(by_name)),
        "classes": entries,
        "classes_without_images": [entry["name"] for entry in entries if not entry["n"]],
    }
    for word, name in (("clean_acc", "clean"), ("autoattack_acc", "aa")):
        if name in by_name:
            found[word] = f"{100 * float(np.mean(by_name[name].correct)):.2f}"
    return found


def numbers(outcome: Outcome) -> dict[str, Any]:
    """The metrics of one set of verdicts; null where undefined."""
    accuracy, n = outcome.classes()
    lowest = int(np.nanargmin(accuracy))
    values = {
        "accuracy": float(np.mean(outcome.correct)),
        "worst_class_accuracy": metrics.worst_class(accuracy),
        "worst_tenth_accuracy": metrics.lowest_mean(accuracy, 0.1),
        "cvar": metrics.lowest_mean(accuracy, 0.2),
        "nsd": metrics.nsd(accuracy),
        "nsd_sample": metrics.nsd(accuracy, ddof=1),
    }
    plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
    found = {**plain, "worst_class": lowest, "worst_class_n": int(n[lowest]), "metric_word": KINDS.get(outcome.attack)}
    return {**found, **_intervals(outcome)}


def _intervals(outcome: Outcome) -> dict[str, Any]:
    """95 % intervals for new images of the same classes, and the worst class without the minimum's bias.

    A class without an image takes no part. Bootstrap by class for the means, `stats.worst_interval` for the minimum.
    """
    labels = np.unique(outcome.labels, return_inverse=True)[1]
    n = np.bincount(labels)
    verdicts = outcome.correct[None]
    worst = stats.worst_interval(stats.class_accuracies(verdicts, labels)[0], n)
    mean = stats.over_images(verdicts, labels, lambda accuracy: accuracy @ (n / n.sum()))
    cvar = stats.over_images(verdicts, labels, lambda accuracy: _lowest(accuracy, 0.2))
    return {
        "worst_class_debiased": worst.estimate,
        "intervals": {"accuracy": mean[1:], "worst_class_debiased": worst[1:], "cvar": cvar[1:]},
    }


def _lowest(accuracy: np.ndarray, share: float) -> np.ndarray:
    """(..., C) -> (...): the mean over the lowest share of the classes."""
    return np.apply_along_axis(metrics.lowest_mean, -1, accuracy, share)


def _classes(outcomes: Mapping[str, Outcome], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One entry per class: how many images, and the accuracy under each attack and under all."""
    by_attack = {name: outcome.classes() for name, outcome in outcomes.items()}
    counts = next(iter(by_attack.values()))[1]
    return [
        {
            "class": label,
            "name": names[label],
            "n": int(n),
            "accuracy": {attack: float(found[0][label]) if n else None for attack, found in by_attack.items()},
        }
        for label, n in enumerate(counts)
    ]
