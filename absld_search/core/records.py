"""What a training leaves behind: its epoch log, its rows of the result tables, its student."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from absld_search.core import faults
from absld_search.core.evaluation import KINDS, Outcome
from absld_search.core.files import write_atomic
from absld_search.core.trainer import by_class

UNDEFINED = ("_nsd", "_nsd_sample")  # the ends of the names of those metrics that need not have a value
Outcomes = Mapping[str, list[Outcome]]  # split -> one outcome per attack


def save_student(folder: Path, student: nn.Module) -> None:
    """`model.safetensors` in `folder`."""
    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    write_atomic(folder / "model.safetensors", safetensors.torch.save(state), "student")


class EpochLog:
    """`epochs.jsonl`: a line per epoch, appended while training; the last line of an epoch counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        faults.at("log.before_write")
        record = {"epoch": epoch, "time": time.time_ns() // 1_000_000, "metrics": dict(metrics)}
        with open(self.path, "a", encoding="utf-8") as handle:
            # A kill can have torn the line before this one; starting with a line end fences it off.
            handle.write("\n" + json.dumps(record))

    def read(self) -> dict[int, dict[str, float]]:
        """{epoch: metrics} in order."""
        found = {record["epoch"]: record["metrics"] for record in self._records()}
        return dict(sorted(found.items()))

    def times(self) -> dict[int, int]:
        """{epoch: when it was first logged}, in milliseconds since 1970. They never change, so that who repeats the log
        to a server repeats it to the millisecond."""
        return {record["epoch"]: record["time"] for record in reversed(self._records()) if "time" in record}

    def last(self) -> dict[str, float]:
        """The newest epoch's metrics."""
        return list(self.read().values())[-1]

    def _records(self) -> list[dict[str, Any]]:
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # torn by a kill: its epoch is logged again
        return found


def _prefix(split: str) -> str:
    return "" if split == "val" else f"{split}/"


def metrics_of(outcomes: Outcomes) -> dict[str, float]:
    """Accuracies by their names: plain on val, `test/...` on test; what is undefined (NSD of all zeros) is absent."""
    return {
        f"{_prefix(split)}{name}": value
        for split, found in outcomes.items()
        for outcome in found
        for name, value in outcome.summary().items()
        if math.isfinite(value) or not name.endswith(UNDEFINED)
    }


def metrics_with_classes(outcomes: Outcomes) -> dict[str, float]:
    """The same, and every class's accuracy, `<kind>_accuracy/class_03`."""
    found = metrics_of(outcomes)
    for split, several in outcomes.items():
        for outcome in several:
            word = KINDS[outcome.attack]
            accuracy = torch.from_numpy(outcome.classes()[0])
            found |= by_class(f"{_prefix(split)}{word}_accuracy", accuracy)
    return found


def epoch_rows(key: str, log: EpochLog) -> list[dict[str, Any]]:
    """Rows of the epochs table."""
    return [
        {"training": key, "epoch": epoch, "metric": name, "value": value}
        for epoch, metrics in log.read().items()
        for name, value in metrics.items()
    ]


def class_rows(key: str, outcomes: Outcomes) -> list[dict[str, Any]]:
    """Rows of the classes table."""
    return [
        {
            "training": key,
            "split": split,
            "attack": outcome.attack,
            "class": label,
            "n": int(n),
            "accuracy": float(accuracy) if n else None,
        }
        for split, found in outcomes.items()
        for outcome in found
        for label, (accuracy, n) in enumerate(zip(*outcome.classes(), strict=True))
    ]


def image_rows(key: str, outcomes: Outcomes) -> list[dict[str, Any]]:
    """Rows of the images table: one verdict each."""
    return [
        {
            "training": key,
            "split": split,
            "attack": outcome.attack,
            "image": int(image),
            "label": int(label),
            "correct": bool(right),
        }
        for split, found in outcomes.items()
        for outcome in found
        for image, label, right in zip(outcome.ids, outcome.labels, outcome.correct, strict=True)
    ]
