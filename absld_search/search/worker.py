"""What runs in a Ray worker: one training, reported epoch by epoch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ray import tune

from absld_search.core import memory
from absld_search.core.trial import TrialConfig, run_trial


def train(job: dict[str, Any], trainings: str, folders: dict[str, str]) -> dict[str, Any]:
    """Run the training in `job`; its last report carries `final` (metrics) or `failed` (the reason).

    A failure that would repeat itself is reported, not raised: Tune retries only what the machine did.
    """
    # Where data and teachers lie is a matter of this start, not of the one that queued the job.
    config = TrialConfig.from_dict({**job["job"], "folders": folders})
    folder = Path(trainings) / job["training"]
    seconds = float(os.environ.get("ABSLD_CHECKPOINT_SECONDS", "4"))
    began = time.monotonic()
    try:
        metrics = run_trial(config, folder, _report, seconds)
    except ArithmeticError as error:
        return {"failed": str(error), "epochs": getattr(error, "epoch", 0)}
    except OSError:
        raise  # what the machine did, not the configuration
    except Exception as error:
        return {"failed": memory.reason(error) or f"{type(error).__name__}: {error}", "epochs": 0}
    return {"final": metrics, "epochs": config.schedule.epochs, "seconds": time.monotonic() - began}


def _report(epoch: int, metrics: dict[str, float]) -> None:
    tune.report({"epoch": epoch, "metrics": metrics})
