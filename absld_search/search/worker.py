"""What runs in a Ray worker: one training, reported epoch by epoch."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from absld_search.core import memory, rungs
from absld_search.core.files import is_full
from absld_search.core.trial import TrialConfig
from absld_search.search.resources import memory_fraction


def train(
    job: dict[str, Any], trainings: str, folders: dict[str, str], gpus: float = 0, deterministic: bool = False
) -> dict[str, Any]:
    """Run the training in `job`, a branch from its trunk; its last report carries `final` (metrics) or `failed` (why).

    A failure is reported, not raised; what the machine did (`lost`, `full`, a dead worker) is tried again.
    """
    # Where data and teachers lie, and torch's mode, are a matter of this start, not of the one that queued the job.
    config = TrialConfig.from_dict({**job["job"], "folders": folders, "deterministic": deterministic})
    share = memory_fraction(gpus)
    if config.device == "cuda" and share:
        torch.cuda.set_per_process_memory_fraction(share)  # whoever needs more fails alone, and its neighbours do not
    whole, budget = rungs.whole_of(config), config.schedule.epochs
    seconds = float(os.environ.get("ABSLD_CHECKPOINT_SECONDS", "4"))
    began, notes = time.monotonic(), list[str]()
    try:
        metrics = rungs.run_rung(whole, budget, Path(trainings), partial(_report, notes), seconds, notes.append)
    except ArithmeticError as error:
        return {"failed": str(error), "epochs": getattr(error, "epoch", 0)}
    except Exception as error:
        return {**_blamed(error), "notes": notes, "epochs": 0}
    return {"final": metrics, "epochs": config.schedule.epochs, "seconds": time.monotonic() - began}


def _blamed(error: Exception) -> dict[str, str]:
    """Whose fault it is: a full disk's, the machine's, or the configuration's, which would repeat itself."""
    if is_full(error):
        return {"full": f"the disk is full ({error})"}
    if why := memory.reason(error):
        return {"failed": why}
    return {"lost" if isinstance(error, OSError) else "failed": f"{type(error).__name__}: {error}"}


def _report(notes: list[str], epoch: int, metrics: dict[str, float]) -> None:
    tune.report({"epoch": epoch, "metrics": metrics, **({"notes": notes[:]} if notes else {})})
    notes.clear()
