"""What a person asked for, and one arm of it as it was settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from absld_search.search import scheduler
from absld_search.space import Distribution, Value


@dataclass(frozen=True)
class Request:
    """What the person asked for, in the command line's words. None: not said."""

    space: str
    question: str
    workload: str
    study: str
    out: Path
    storage: str
    tracking_uri: str
    arms: tuple[str, ...] = ()  # of the space's; none named: all
    trials: int | None = None
    seeds: int | None = None
    search_seeds: int = 1
    set: Mapping[str, str] = field(default_factory=dict)
    sampler: str | None = None
    constraints: tuple[str, ...] = ()
    stopping: str = "none"
    eta: int = scheduler.ETA
    grace: int | None = None
    race: bool = False
    reuse: bool = False
    retry_failed: bool = False
    deterministic: bool = False
    time_budget: float | None = None  # hours of training, of all arms together
    gpu_hours: float | None = None
    epochs_budget: int | None = None  # epochs of training, of all arms together
    device: str = "cpu"
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    processes_per_trial: int | None = None  # one training in several processes, their gradients summed
    max_concurrent: int | None = None
    address: str | None = None
    wait_for_nodes: float = 0  # seconds that a cluster which grows by itself gets
    command: str = ""  # that asked for this, without passwords
    show: str = ""  # the command that opens the front
    store: str = ""  # URI where trainings lie that no folder of this machine shows to the others
    data_dir: str = ""
    teacher_dir: str = ""
    forked_from: str = ""  # the study that this one would be, were it not different


@dataclass(frozen=True)
class Arm:
    """One arm: what is settled, what is searched, how many trials it gets, and which are tried first."""

    name: str
    words: Mapping[str, Value]
    tuned: Mapping[str, Distribution]
    trials: int
    first: tuple[dict[str, Value], ...]
