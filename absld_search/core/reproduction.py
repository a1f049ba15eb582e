"""An exported training, trained again and held against what was exported: weights, classes, images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

from absld_search.core import data, results, teacher_making, teachers
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders, sha256_of
from absld_search.core.trial import TRAINING, Report, run_trial
from absld_search.words import UsageError
from absld_search.workloads import workload

WEIGHTS, IMAGES = "model.safetensors", "images.parquet"
Say = Callable[[str], None]
Bundle = dict[str, Any]


def read(folder: Path) -> Bundle:
    """`config.json`, `result.json` and `environment.json` of a bundle.

    Raises: UsageError where one is missing or none of ours, or where the weights are not those that were exported.
    """
    found: Bundle = {}
    for name in ("config", "result", "environment"):
        try:
            found[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder} is no exported training: {name}.json cannot be read ({error}).") from None
    missing = [name for name in (WEIGHTS, IMAGES) if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder} is no exported training: it has no {missing[0]}.")
    if sha256_of(folder / WEIGHTS) != found["result"].get("sha256"):
        raise UsageError(f"{folder / WEIGHTS}: its content does not match the hash in result.json; export it again.")
    return found


def config_of(bundle: Bundle, folders: Folders, device: str | None) -> TrialConfig:
    """The configuration of a bundle, on this machine. Raises: UsageError where this program would train another."""
    try:
        config = TrialConfig.from_dict({**bundle["config"]["config"], "folders": asdict(folders)})
        config = config if device is None else replace(config, device=device)
        known = config.hash
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise UsageError(f"config.json holds no configuration ({type(error).__name__}: {error}).") from None
    if known != bundle["config"]["hash"]:
        raise UsageError(
            "config.json: this version of the program understands the configuration differently "
            f"({known} instead of {bundle['config']['hash']}). Use the revision that environment.json names."
        )
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device: the training used a GPU, and torch finds none here. Say --device cpu.")
    return config


def check_inputs(bundle: Bundle, config: TrialConfig, say: Say) -> None:
    """The data and teachers are those of the study; a missing teacher is made. Raises: UsageError."""
    setting, facts = workload(config.workload), bundle["result"]["study"]
    here = json.loads(json.dumps(data.facts(setting.dataset, setting.split, config.folders.data)))
    if facts.get("data") not in (None, here):
        raise UsageError("--data-dir: the data differ from those of the exported study.")
    for name in config.teacher_names.values():
        file = teacher_making.ensure_teacher(setting, name, config.device, say, config.folders, passing=say)
        mine, theirs = teachers.facts(file)["sha256"], facts.get("teachers", {}).get(name, {}).get("sha256")
        if theirs not in (None, mine):
            say(f"teacher {name} has other weights here ({str(mine)[:12]}, there {theirs[:12]}): so will the student")


def reproduce(bundle: Bundle, folder: Path, config: TrialConfig, to: Path, report: Report) -> dict[str, Any]:
    """Train it again in `to`/KEY, compare with the bundle in `folder`, write `reproduction.json` there, return that.

    `earlier`: it was trained there before, and nothing is trained now; `environment` is of whatever trained it.
    """
    to = to / config.key  # another bundle's training never counts as this one's
    earlier = results.read_result(to) is not None
    run_trial(config, to, report)
    trained = json.loads((to / TRAINING).read_text(encoding="utf-8"))
    found = {
        **compare(folder, to),
        "earlier": earlier,
        "deterministic": config.deterministic,
        "environment": differences(bundle["environment"].get("trained"), trained["environment"]),
    }
    results.write_json(to / "reproduction.json", found)
    return found


def compare(there: Path, here: Path) -> dict[str, Any]:
    """Whether weights, values by class and verdicts are equal, and by how much they are not."""
    return {
        "weights_equal": sha256_of(there / WEIGHTS) == sha256_of(here / WEIGHTS),
        "weights": {"there": sha256_of(there / WEIGHTS), "here": sha256_of(here / WEIGHTS)},
        "largest_weight_difference": _largest(there / WEIGHTS, here / WEIGHTS),
        "attacks": _by_attack(_images(there), _images(here)),
    }


def equal(found: Mapping[str, Any]) -> bool:
    """Whether a comparison found no difference at all."""
    return bool(found["weights_equal"]) and all(row["classes_equal"] for row in found["attacks"])


def _images(folder: Path) -> pa.Table:
    with pq.ParquetFile(folder / IMAGES) as file:
        return file.read()


def _largest(there: Path, here: Path) -> float | None:
    """Largest absolute difference of any weight; None where the networks are not alike."""
    ours, theirs = safetensors.torch.load_file(here), safetensors.torch.load_file(there)
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        return None
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def _by_attack(there: pa.Table, here: pa.Table) -> list[dict[str, Any]]:
    """For each split and attack: accuracies of each class there and here, and how many verdicts differ."""
    theirs, ours = _grouped(there), _grouped(here)
    if theirs.keys() != ours.keys():
        raise UsageError("images.parquet: the bundle was measured with other attacks than this program measures with.")
    return [
        {"split": split, "attack": attack, **_verdicts(theirs[split, attack], ours[split, attack])}
        for split, attack in sorted(theirs)
    ]


def _grouped(table: pa.Table) -> dict[tuple[str, str], Any]:
    frame = table.to_pandas().sort_values("image")
    return {(str(split), str(attack)): rows for (split, attack), rows in frame.groupby(["split", "attack"])}


def _verdicts(there: Any, here: Any) -> dict[str, Any]:
    same = np.array_equal(there["image"], here["image"]) and np.array_equal(there["label"], here["label"])
    if not same:
        raise UsageError("images.parquet: the bundle was measured on other images.")
    theirs, ours = (rows.groupby("label")["correct"].mean().tolist() for rows in (there, here))
    differing = int((there["correct"].to_numpy() != here["correct"].to_numpy()).sum())
    return {"classes_equal": theirs == ours, "there": theirs, "here": ours, "differing": differing, "n": len(here)}


def differences(there: Mapping[str, Any] | None, here: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name -> (there, here) of whatever differs between two environments; None where the other is not recorded."""
    if there is None:
        return None
    flat = [_flat(there), _flat(here)]
    return {name: [flat[0].get(name), flat[1].get(name)] for name in sorted(flat[0].keys() | flat[1].keys())
            if flat[0].get(name) != flat[1].get(name)}  # fmt: skip


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    packages = {f"packages.{name}": found for name, found in environment.get("packages", {}).items()}
    return {**{name: value for name, value in environment.items() if name != "packages"}, **packages}
