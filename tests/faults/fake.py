"""A driver without Ray: real ledger, queue, ownership, checkpoints and tables around a training that costs nothing."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absld_search.core import checkpoints, faults, results
from absld_search.core.metrics import summary
from absld_search.core.records import EpochLog, epoch_rows
from absld_search.search import ownership, tables
from absld_search.search.halving import epochs_of
from absld_search.search.ledger import Ledger
from absld_search.search.plan import Plan
from absld_search.search.queue import Queue
from tests.search.requests import plan

CLASSES, IMAGES, EPOCHS = 3, 8, 3
TRIALS, SEEDS = 3, 2
# Rungs of 2, 4 and 8 epochs, a race for those in doubt, and a constraint that some break.
STAGES = {
    "set": {"epochs": "8"}, "stopping": "mo-asha", "eta": 2, "grace": 2, "race": True, "trials": 8,
    "constraints": ("robust_accuracy >= 0.62",),
}  # fmt: skip
TRAININGS = TRIALS + 1 + 2 * SEEDS  # two arms, one of them with nothing to tune; fresh seeds for each one's choice


def study(out: Path, **words: Any) -> Plan:
    """The small plan that the fault tests drive."""
    settings = {"epochs": str(EPOCHS), **words.pop("set", {})}
    return plan(out, **{"trials": TRIALS, "seeds": SEEDS, "set": settings, **words})


def drive(made: Plan, seconds: float = 0.0, on_lost: Callable[[], None] = lambda: None) -> None:
    """What is left of the study, in this process. `seconds`: of each epoch. Raises: ownership.Held."""
    request = made.request
    with ownership.held(request.storage, request.study, made.folder, on_lost) as lease:
        ledger = Ledger(request.storage, request.study, lease.fence)
        queue = Queue(made, ledger)
        while (row := queue.take()) is not None:
            metrics = train(made.folder / "trainings" / row["training"], row, seconds)
            queue.done(row["training"], metrics, "", epochs=epochs_of(row), seconds=0.0)
        assert tables.write(made, ledger) == []


def train(folder: Path, row: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Epochs that only leave their marks, then a result, as a real training leaves them."""
    finished = results.read_result(folder)
    if finished is not None:
        checkpoints.remove(folder)
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    counter, log, epochs = Counter(), EpochLog(folder / "epochs.jsonl"), epochs_of(row)
    checkpoints.go_on(counter, folder)
    while counter.epoch < epochs:
        counter.epoch += 1
        time.sleep(seconds)
        with open(folder / "marks", "a", encoding="utf-8") as marks:
            marks.write(f"{counter.epoch}\n")
        faults.at("worker.epoch")
        log.append(counter.epoch, {"robust_accuracy": counter.epoch / epochs})
        checkpoints.save(folder, counter.epoch, counter.state_dict())
    metrics = write_result(folder, row, log)
    checkpoints.remove(folder)
    return metrics


class Counter:
    """What is trained: a number."""

    def __init__(self) -> None:
        self.epoch = 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = int(state["epoch"])


def write_result(folder: Path, row: Mapping[str, Any], log: EpochLog) -> dict[str, float]:
    """Tables and metrics, a function of configuration and seed."""
    splits = ("val", "test") if row["job"]["test"] else ("val",)
    images = [image for split in splits for image in outcomes(row["training"], split)]
    classes, metrics = [], {}
    for split in splits:
        found = class_accuracies(images, split)
        mine = [image for image in images if image["split"] == split]
        columns = [[image[name] for image in mine] for name in ("correct", "label")]
        values = summary("robust", columns[0], columns[1], CLASSES)
        prefix = "" if split == "val" else "test/"
        metrics |= {f"{prefix}{name}": value for name, value in values.items() if math.isfinite(value)}
        base = {"training": row["training"], "split": split, "attack": "apgd-ce", "n": IMAGES}
        classes += [{**base, "class": label, "accuracy": value} for label, value in enumerate(found)]
    results.write_shard(folder, epoch_rows(row["training"], log), classes, images, metrics)
    return metrics


def outcomes(training: str, split: str) -> list[dict[str, Any]]:
    """A verdict per image, drawn from the training's name."""
    digest = hashlib.sha256(f"{training}{split}".encode()).digest()
    base = {"training": training, "split": split, "attack": "apgd-ce"}
    return [{**base, "image": i, "label": i % CLASSES, "correct": digest[i] % 3 > 0} for i in range(CLASSES * IMAGES)]


def class_accuracies(images: list[dict[str, Any]], split: str) -> list[float]:
    """Share of correct images of each class."""
    mine = [image for image in images if image["split"] == split]
    return [sum(i["correct"] for i in mine if i["label"] == label) / IMAGES for label in range(CLASSES)]


def marks(folder: Path) -> dict[str, list[int]]:
    """{training: epochs in the order in which they were begun}; a torn last line is an epoch too."""
    found = {path.parent.name: path.read_text().split() for path in folder.glob("trainings/*/marks")}
    return {key: [int(epoch) for epoch in epochs] for key, epochs in found.items()}


def holder(folder: Path) -> dict[str, Any]:
    """The note of who drives the study."""
    return dict(json.loads((folder / "driver.json").read_text()))
