"""A made-up study folder, written through `core.results` as a real one: for tests of what reads studies."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from absld_search.core import metrics, results
from absld_search.search import fronts

OBJECTIVES = {"worst_class_robust_accuracy": "max", "robust_accuracy": "max"}
ARMS = {"dual": 0.0, "shared": -0.09, "product": 0.005}
DIGITS = tuple("0123456789")
ATTACKS = {"clean": 0.25, "pgd20": 0.02, "cw20": -0.02, "apgd-ce": 0.0, "apgd": -0.04}  # how much easier than APGD-CE
OLD_ATTACKS = {attack: easier for attack, easier in ATTACKS.items() if attack in ("clean", "apgd-ce", "cw20")}


def write_study(
    folder: Path,
    arms: Mapping[str, float] = ARMS,
    *,
    seeds: int = 8,
    trials: int = 12,
    classes: tuple[str, ...] = DIGITS,
    images_per_class: int = 60,
    failed: Iterable[str] = (),
    unchosen: Iterable[str] = (),
    temperatures: bool = True,
    attacks: Mapping[str, float] = ATTACKS,
    **facts: Any,
) -> Path:
    """Write a study whose arms differ from the first by the given robust accuracy; return its folder.

    Confirm trainings of `failed` arms are FAILED; `unchosen` arms have only failed trials. The last class is the
    hardest. `attacks`: those stored on test, each with how much easier it is than APGD-CE. More facts
    replace those of `study.json`.
    """
    maker = _Maker(folder, classes, images_per_class, temperatures, attacks)
    trial_rows = [row for arm in arms for row in maker.search(arm, arms[arm], trials, arm in unchosen)]
    _mark_fronts(trial_rows)
    training_rows = [
        maker.confirm(row, arms[row["arm"]], seed, row["arm"] in failed)
        for row in trial_rows
        if row["chosen"]
        for seed in range(1000, 1000 + seeds)
    ]
    results.combine(folder, trial_rows, training_rows, OBJECTIVES)
    results.write_facts(folder, _facts(folder, list(arms), classes, seeds) | facts)
    return folder


class _Maker:
    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        images_per_class: int,
        temperatures: bool,
        attacks: Mapping[str, float],
    ) -> None:
        self.folder, self.temperatures, self.attacks = folder, temperatures, attacks
        self.level = np.linspace(0.80, 0.35, len(classes))  # robust accuracy of each class in the first arm, (C,)
        self.labels = np.repeat(np.arange(len(classes)), images_per_class)
        # An image is about as hard in every arm and seed: this is what pairing lives on.
        self.hardness = np.random.default_rng(1).random(self.labels.size)

    def search(self, arm: str, shift: float, trials: int, all_fail: bool) -> list[dict[str, Any]]:
        rng = np.random.default_rng(len(arm))
        rows = []
        for number in range(trials):
            fails = all_fail or number == 3
            worst = float(rng.uniform(0.1, 0.35)) + shift
            values = None if fails else (worst, 0.65 + shift - 0.6 * (worst - shift - 0.2) ** 2 - 0.05 * rng.random())
            params = {
                "temperature_lr": round(float(10 ** rng.uniform(-2, 0)), 4),
                "initial_temperature_adv": 1.0,
            }
            rows.append(_trial(arm, number, values, params))
        return rows

    def confirm(self, trial: Mapping[str, Any], shift: float, seed: int, fails: bool) -> dict[str, Any]:
        key = f"{trial['config']}-s{seed}"
        if not fails:
            images = self._images(key, shift, seed)
            results.write_shard(
                self.folder / "trainings" / key,
                self._epochs(key, shift, seed),
                _class_rows(key, images, len(self.level)),
                images,
                {"key": key},
            )
        return {
            "training": key, "config": trial["config"], "seed": seed, "stage": "confirm",
            "state": "FAILED" if fails else "COMPLETE", "reason": "loss is not finite" if fails else "",
            "attempts": 1, "epochs": 30, "seconds": 12.5,
        }  # fmt: skip

    def _images(self, key: str, shift: float, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        noise = 0.1 * rng.standard_normal(self.labels.size) + 0.02 * rng.standard_normal()
        own = 0.01 * np.random.default_rng([seed, len(key), int(1000 * abs(shift))]).standard_normal()
        columns: dict[str, list[Any]] = {name: [] for name in results.SHARDS["images"].names}
        for attack, easier in self.attacks.items():
            correct = self.hardness + noise + own < self.level[self.labels] + shift + easier
            n = self.labels.size
            rows = ([key] * n, ["test"] * n, [attack] * n, range(n), self.labels.tolist(), correct.tolist())
            for column, values in zip(columns.values(), rows, strict=True):
                column.extend(values)
        return columns

    def _epochs(self, key: str, shift: float, seed: int) -> list[dict[str, Any]]:
        rng = np.random.default_rng(seed)
        values = {(epoch, "train_robust_accuracy"): 0.6 - 0.5 / epoch for epoch in range(1, 31)}
        for side in ("adv", "clean") if self.temperatures else ():
            steps = np.linspace(0.12, -0.12, len(self.level)) + 0.05 * rng.standard_normal((30, len(self.level)))
            tau = np.clip(1 + np.cumsum(steps * (1 + shift), axis=0), 0.5, 5.0)
            values |= {(e + 1, f"temperature_{side}/class_{c:02d}"): v for (e, c), v in np.ndenumerate(tau)}
        return [{"training": key, "epoch": e, "metric": m, "value": float(v)} for (e, m), v in values.items()]


def _trial(arm: str, number: int, values: tuple[float, float] | None, params: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial": f"{arm}-{number:03d}", "arm": arm, "number": number, "config": f"config-{arm}-{number}",
        "state": "COMPLETE" if values else "FAILED", "reason": "" if values else "logits are not finite",
        "params": json.dumps(params), "chosen": False, "pareto": False, "pareto_arm": False,
    }  # fmt: skip
    return row | {f"objective/{name}": values[i] if values else None for i, name in enumerate(OBJECTIVES)}


def _mark_fronts(rows: list[dict[str, Any]]) -> None:
    directions = list(OBJECTIVES.values())
    complete = [row for row in rows if row["state"] == "COMPLETE"]

    def values(of: list[dict[str, Any]]) -> list[list[float]]:
        return [[row[f"objective/{name}"] for name in OBJECTIVES] for row in of]

    for row, on_front in zip(complete, fronts.non_dominated(values(complete), directions), strict=True):
        row["pareto"] = bool(on_front)
    for arm in {row["arm"] for row in complete}:
        of_arm = [row for row in complete if row["arm"] == arm]
        for row, on_front in zip(of_arm, fronts.non_dominated(values(of_arm), directions), strict=True):
            row["pareto_arm"] = bool(on_front)
        of_arm[fronts.knee(values(of_arm), directions)]["chosen"] = True


def _class_rows(key: str, images: Mapping[str, Any], num_classes: int) -> list[dict[str, Any]]:
    rows = []
    attack, labels, correct = (np.asarray(images[name]) for name in ("attack", "label", "correct"))
    for name in np.unique(attack):
        accuracy, n = metrics.class_accuracies(correct[attack == name], labels[attack == name], num_classes)
        rows += [
            {
                "training": key,
                "split": "test",
                "attack": str(name),
                "class": c,
                "n": int(n[c]),
                "accuracy": float(a),
            }
            for c, a in enumerate(accuracy)
        ]
    return rows


def _facts(folder: Path, arms: list[str], classes: tuple[str, ...], seeds: int) -> dict[str, Any]:
    return {
        "study": folder.name,
        "question": "Does ABSLD need two sets of class temperatures, adversarial and clean?",
        "space": "ablation_dual_temps",
        "workload": "digits",
        "workload_summary": "the 1,797 real 8x8 digits of scikit-learn, a small CNN; CPU",
        "objectives": OBJECTIVES,
        "arms": arms,
        "fixed": {"method": "absld"},
        "classes": list(classes),
        "eps": 0.15,
        "search_seeds": 1,
        "confirm_seeds": seeds,
        "command": f"python -m absld_search.run --search-space ablation_dual_temps --study {folder.name}",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "selection": "knee point of each arm's front on val, last epoch",
        "temperature_bounds": [0.5, 5.0],
    }
