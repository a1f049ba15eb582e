"""The other processes of a training that has several: Ray tasks beside the one that reports.

Where one of them dies, the others soon end too, and the training counts as ended by the machine. Of a process that is
gone the operating system tells the others at once, and gloo raises; of a machine that is gone, of a process that never
came, or between GPUs, nobody tells: so the first process asks Ray about the others, and ends itself. Those that follow
belong to the first one, and Ray ends them with it.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch

from absld_search.core.config import TrialConfig
from absld_search.core.distributed import Group
from absld_search.core.trial import follow

LOOK_SECONDS = 2.0  # between two looks at whether a training is over
GRACE_SECONDS = 20.0  # for the first process to hear by itself that another one has ended, and to say so
LEFT_ALONE = 70  # its exit code where it does not
ALONE = ("gloo/transport", "NCCL")  # how torch says, in RuntimeErrors, that another process is not there
Tasks = Mapping[ray.ObjectRef, int]  # task -> rank


@contextmanager
def group_of(job: Mapping[str, Any], folder: Path, bundles: Sequence[dict[str, float]]) -> Iterator[Group | None]:
    """Starts the followers, one in each bundle but the first, and ends them; None where there are none.

    They lie in the placement group of the training, which Ray Tune has set aside as a whole.
    Raises: ConnectionError where one has ended and the training inside could not go on.
    """
    if len(bundles) == 1:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting-{uuid.uuid4().hex}"
    tasks = {
        ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], max_retries=0)(_follow).remote(
            dict(job), Group(rank, len(bundles), meeting)
        ): rank
        for rank, share in enumerate(bundles[1:], start=1)
    }
    over = threading.Event()
    threading.Thread(target=_watch, args=(tasks, over), name="followers", daemon=True).start()
    try:
        with _named(tasks):
            yield Group(0, len(bundles), meeting)
    finally:
        over.set()
        for task in tasks:
            ray.cancel(task, force=True)
        meeting.unlink(missing_ok=True)


@contextmanager
def _named(tasks: Tasks) -> Iterator[None]:
    """What torch says when another process is gone does not say why; Ray knows."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        said, alone = str(error), isinstance(error, (torch.distributed.DistError, TimeoutError))
        if alone or any(words in said for words in ALONE):
            ended, _ = ray.wait([*tasks], timeout=LOOK_SECONDS)
            if why := _why(tasks, ended):
                raise ConnectionError(why) from error
        raise


def _watch(tasks: Tasks, over: threading.Event) -> None:
    """Ends this process where another one has ended, unless it has noticed. From a collective it can't be woken."""
    left = [*tasks]
    while left and not over.is_set():
        ended, left = ray.wait(left, timeout=LOOK_SECONDS)
        why = _why(tasks, ended)
        if why and not over.wait(GRACE_SECONDS):
            print(why, file=sys.stderr, flush=True)
            os._exit(LEFT_ALONE)


def _why(tasks: Tasks, ended: Sequence[ray.ObjectRef]) -> str:
    """What ended one of the tasks before its time; empty where all came to their end."""
    for task in ended:
        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            line = (str(cause).splitlines() or [""])[0]
            return f"process {tasks[task]} of the training has ended: {type(cause).__name__}: {line}"
    return ""


def _follow(job: dict[str, Any], group: Group) -> None:
    follow(TrialConfig.from_dict(job), group)
