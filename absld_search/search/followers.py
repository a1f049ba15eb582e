"""The other processes of a training that has several: Ray tasks beside the one that reports."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from absld_search.core.config import TrialConfig
from absld_search.core.distributed import Group
from absld_search.core.trial import follow


@contextmanager
def group_of(job: Mapping[str, Any], folder: Path, bundles: Sequence[dict[str, float]]) -> Iterator[Group | None]:
    """Starts the followers, one in each bundle but the first, and ends them; None where there are none.

    They lie in the placement group of the training, which Ray Tune has set aside as a whole.
    """
    if len(bundles) == 1:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting-{uuid.uuid4().hex}"
    tasks = [
        ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], max_retries=0)(_follow).remote(
            dict(job), Group(rank, len(bundles), meeting)
        )
        for rank, share in enumerate(bundles[1:], start=1)
    ]
    try:
        yield Group(0, len(bundles), meeting)
    finally:
        for task in tasks:
            ray.cancel(task, force=True)
        meeting.unlink(missing_ok=True)


def _follow(job: dict[str, Any], group: Group) -> None:
    follow(TrialConfig.from_dict(job), group)
