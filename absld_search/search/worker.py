"""What runs in a Ray worker: one training, reported epoch by epoch."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ray import tune

from absld_search.core import memory, rungs
from absld_search.core.files import is_full
from absld_search.core.trial import TrialConfig
from absld_search.search import wire
from absld_search.search.followers import group_of
from absld_search.search.resources import memory_fraction
from absld_search.search.sending import Sending
from absld_search.search.teacher_copies import fetch
from absld_search.words import Away, UsageError
from absld_search.workloads import workload

SAVED_SECONDS, SENT_SECONDS = "4", "60"  # between two checkpoints, and where each is sent to a store
PACKAGE = Path(__file__).parents[1]
NONE: Mapping[str, str] = {}
ALONE = ({"CPU": 1.0, "GPU": 0.0},)  # one process, no GPU
MACHINE = (OSError, UsageError, torch.distributed.DistError)
# How torch says, in plain RuntimeErrors, that another process of the training, or the machine's GPU, is not there.
GONE = ("gloo/transport", "CUDA error", "CUDA driver", "NVIDIA driver", "No CUDA GPUs", "compiled with CUDA", "cuDNN")


def train(
    job: dict[str, Any],
    trainings: str,
    folders: dict[str, str],
    bundles: Sequence[dict[str, float]] = ALONE,
    store: tuple[str, str] = ("", ""),
    teachers: Mapping[str, str] = NONE,
    report_seconds: float = 0,
    deterministic: bool = False,
    rest_seconds: float = 0,
) -> dict[str, Any]:
    """Run the training in `job`, a branch from its trunk; its last report carries `final` (metrics) or `failed` (why).

    A failure is reported, not raised; what the machine did (`lost`, a dead worker) is tried again, and where none would
    fare better (`paused`: a full disk, a store that is away) nothing more is begun.
    At most one epoch in `report_seconds` is reported, for a driver has thousands of trainings to listen to.
    `store`: the URI and the folder in it where trainings are fetched from and sent to, if there is one. `teachers`:
    {name: sha256} of those that the study began with, which a machine that has joined it fetches from there.
    `rest_seconds`: how long the place of a lost training stays taken; a broken machine, which loses each within
    seconds, would otherwise be handed all the others too.
    """
    # Where data and teachers lie, and torch's mode, are a matter of this start, not of the one that queued the job.
    words = {**job["job"], "folders": folders, "deterministic": deterministic}
    config = TrialConfig.from_dict(words)
    share = memory_fraction(bundles[0]["GPU"])
    if config.device == "cuda" and share:
        torch.cuda.set_per_process_memory_fraction(share)  # whoever needs more fails alone, and its neighbours do not
    whole, budget, place = rungs.whole_of(config), config.schedule.epochs, Path(trainings)
    seconds = float(os.environ.get("ABSLD_CHECKPOINT_SECONDS", SENT_SECONDS if store[0] else SAVED_SECONDS))
    began, notes = time.monotonic(), list[str]()
    folders_of_it = dict.fromkeys([place / whole.key, place / config.key])  # a branch's trunk is gone on with elsewhere
    try:
        for name in set(config.teacher_names.values()):
            fetch(store[0], workload(config.workload), name, config.folders, teachers.get(name, ""))
        with Sending(*store, [*folders_of_it], notes.append) as sending, group_of(words, place, bundles) as group:
            report = Reports(notes, sending, report_seconds)
            metrics = rungs.run_rung(whole, budget, place, report, seconds, notes.append, group)
    except ArithmeticError as error:
        spent = {"epochs": getattr(error, "epoch", 0), "seconds": time.monotonic() - began}
        return {"failed": str(error), **spent, "notes": notes}
    except Exception as error:
        blamed = _blamed(error)
        if "failed" in blamed:
            keep_traceback(place / config.key, error)
        seconds = time.monotonic() - began
        time.sleep(rest_seconds if "lost" in blamed else 0)
        return {**blamed, "notes": notes, "epochs": 0, "seconds": seconds}
    took = {"epochs": config.schedule.epochs, "seconds": time.monotonic() - began}
    return {"final": metrics, **took, "notes": notes}  # those that no epoch's report has carried


def _blamed(error: Exception) -> dict[str, str]:
    """Whose fault it is: everybody's, the machine's, or the configuration's, which would repeat itself.

    Words were checked before they were queued, so what a worker refuses is what lies on its machine.
    """
    if is_full(error):
        return {"paused": f"the disk is full ({error})"}
    if isinstance(error, Away):
        return {"paused": str(error)}
    if why := memory.reason(error):
        return {"failed": why}
    said = str(error)
    lost = isinstance(error, MACHINE) or any(words in said for words in GONE) and "out of memory" not in said
    return {"lost" if lost else "failed": f"{type(error).__name__}: {said}{_place(error)}"}


def _place(error: Exception) -> str:
    """Where in this program, or in a method that somebody has added to it, an error arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""


def keep_traceback(folder: Path, error: Exception) -> None:
    """The whole of it, beside the log of the training that it ended."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return  # the reason is in the ledger all the same


class Reports:
    """What the driver hears of a training on its way: epochs, not too many of them, and what there is to be said."""

    def __init__(self, notes: list[str], sending: Sending, seconds: float) -> None:
        self.notes, self.sending, self.seconds = notes, sending, seconds
        self.reported_at = float("-inf")

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        self.sending.after_epoch()
        if time.monotonic() - self.reported_at < self.seconds:
            return  # it is in the training's log
        self.reported_at = time.monotonic()
        tune.report(wire.packed(epoch=epoch, metrics=metrics, notes=self.notes))
        self.notes.clear()
