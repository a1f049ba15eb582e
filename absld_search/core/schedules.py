"""Learning rates by the epoch: steps, or warm-up, stable, decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

from absld_search.core.methods.knobs import knob, knobs
from absld_search.words import UsageError

KINDS = ("step", "wsd")
SHAPES: dict[str, Callable[[float], float]] = {"linear": lambda t: 1 - t, "sqrt": lambda t: 1 - math.sqrt(t)}


@dataclass(frozen=True)
class Schedule:
    """Optimizer and schedule, equal for all compared methods: SGD, and one of two ways for its rate to fall.

    step: the rate is multiplied by `lr_factor` at each of the milestones.
    wsd: warm-up, stable, decay (Hu et al., COLM 2024, arXiv:2404.06395; its shapes: Hägele et al., NeurIPS 2024,
    arXiv:2405.18392). Until the decay begins nothing depends on `epochs`, so one trunk serves every length: a
    training of `epochs` with `trunk_epochs` is the branch that leaves a trunk of that length to end at `epochs`.
    Raises: UsageError where the numbers contradict each other.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[float, ...]  # step: fractions of `epochs`
    lr_factor: float  # step
    kind: str = "step"
    warmup_share: float = knob(0.03, low=0, high=1, doc="wsd: share of the trunk's epochs in which the rate rises")
    decay_share: float = knob(85 / 300, above=0, high=1, doc="wsd: share of the epochs reached in which it falls")
    decay_shape: str = knob("sqrt", options=tuple(SHAPES), doc="wsd: 1 - t, or 1 - sqrt(t), over the decay")
    decay_floor: float = knob(0.01, low=0, high=1, doc="wsd: rate of the last epoch / learning_rate")
    trunk_epochs: int = knob(0, low=0, doc="wsd: epochs of the trunk that this training branches from; 0: its own")

    def __post_init__(self) -> None:
        if self.trunk_epochs and self.trunk_epochs < self.epochs:
            raise UsageError(f"trunk_epochs is {self.trunk_epochs}, less than the branch's own epochs, {self.epochs}.")

    @property
    def horizon(self) -> int:
        """Epochs that shares of the training are shares of: those of the trunk, where there is one."""
        return self.trunk_epochs or self.epochs

    def drops(self) -> list[int]:
        """step: after which epochs the rate is multiplied by `lr_factor`."""
        return [max(1, round(at * self.epochs)) for at in self.milestones]

    @property
    def branch_at(self) -> int:
        """wsd: how many epochs are over when the decay begins."""
        return self.epochs - max(1, round(self.decay_share * self.epochs))

    def scale(self, done: int) -> float:
        """wsd: rate of the epoch that follows `done` epochs / `learning_rate`, in [0, 1]."""
        warm = min(1.0, (done + 1) / (round(self.warmup_share * self.horizon) + 1))
        if done < self.branch_at:
            return warm
        fallen = min(1.0, (done + 1 - self.branch_at) / (self.epochs - self.branch_at))
        return min(warm, self.decay_floor + (1 - self.decay_floor) * SHAPES[self.decay_shape](fallen))

    def lr_scale(self, number: int, rate: float) -> float:
        """What methods are told in epoch `number` while the optimizer's rate is `rate`.

        step: `rate` itself, which at an epoch's end is already the next one's, as ABSLD's release has it. wsd: the
        epoch's own, at its end too; else the last epoch of a trunk would have to know which branch follows.
        """
        return self.scale(number - 1) if self.kind == "wsd" else rate / self.learning_rate

    def identity(self) -> dict[str, Any]:
        """Whatever of it changes a training's numbers."""
        other = ("kind", *WSD) if self.kind == "step" else ()
        found = {name: value for name, value in asdict(self).items() if name not in other}
        return found if self.trunk_epochs != self.epochs else {**found, "trunk_epochs": 0}


WSD = tuple(knobs(Schedule))  # words that only wsd has


def scheduler(schedule: Schedule, optimizer: Optimizer, drop_once: bool = False) -> LRScheduler:
    """torch's, to be stepped once an epoch. `drop_once`: step with its first drop alone."""
    if schedule.kind == "wsd":
        return LambdaLR(optimizer, lambda done: schedule.scale(done))
    drops = schedule.drops()[:1] if drop_once else schedule.drops()
    return MultiStepLR(optimizer, drops, schedule.lr_factor)


def restore(scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Take the state back, after the optimizer took its own: a branch has other rates than its trunk stored."""
    scheduler.load_state_dict(dict(state))
    if isinstance(scheduler, LambdaLR):
        rates = [
            base * scale(scheduler.last_epoch)
            for base, scale in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
