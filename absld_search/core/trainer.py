"""The epoch loop: the same for every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import speed
from absld_search.core.attacks import frozen_batch_norm
from absld_search.core.averaging import WeightAverage, worst_class_accuracy
from absld_search.core.data import Batch, Split
from absld_search.core.finite import NonFinite as NonFinite
from absld_search.core.finite import Watch, WatchedTeacher, require_classes, require_epoch
from absld_search.core.graphs import Replayed
from absld_search.core.logit_bank import Count
from absld_search.core.losses import ClassMeans
from absld_search.core.memory import Rescue
from absld_search.core.methods.base import AskedTeacher, Epoch, Method, Step, Teacher
from absld_search.core.methods.knobs import knob
from absld_search.core.schedules import Schedule, restore, scheduler
from absld_search.core.selection import RULES
from absld_search.core.speed import Speed


@dataclass(frozen=True)
class Options:
    """What a training does beside its schedule. A method's paper may settle it (`Method.training_defaults`).

    A method that starts from a robust model spends the first `init_share` of the epochs on another method, at
    that method's own defaults and this training's attack: every training of a study costs the same epochs.
    The default share is the papers' first drop of the learning rate, so that what follows is fine-tuning.
    """

    init_from: str = knob("", doc="what to start from: a method's name, or a .safetensors file of the student")
    init_share: float = knob(215 / 300, low=0, high=1, doc="share of the epochs that `init_from`'s method gets")
    averaging: str = knob("none", options=("none", "ema", "fawa"), doc="evaluate an average of the weights")
    averaging_decay: float = knob(0.85, low=0, high=1, doc="of the average, per epoch")
    averaging_start: float = knob(0.25, low=0, high=1, doc="share of the epochs before the average begins")
    averaging_floor: float = knob(0.2, low=0, high=1, doc="fawa: worst class's robust accuracy that lets weights in")
    nesterov: bool = knob(False, doc="SGD with Nesterov's momentum: the Fair-ARD and DAFA releases")
    selection: str = knob("last", options=RULES, doc="which looked-at epoch's weights count; oracle: looks at test")
    drop_once: bool = knob(False, doc="only the first drop of the rate: the slip in ARD's, IAD's, Fair-ARD's release")
    precision: str = knob("fp32", options=speed.PRECISIONS, doc="bf16: the student in bfloat16, losses not")
    compile: bool = knob(False, doc="compile the student: minutes the first time, then kept in the cache folder")
    graphs: bool = knob(False, doc="CUDA only, never measured: whole steps are replayed as one graph")


@dataclass(frozen=True)
class WarmUp:
    """A method that has the first `epochs` to itself."""

    method: Method
    epochs: int


@dataclass
class EpochEnd:
    """What there is to report when an epoch has ended."""

    number: int
    metrics: dict[str, float] = field(default_factory=dict)


class Trainer:
    """One training that can stop after any epoch and go on from `state_dict`, bit for bit the same.

    All of the randomness of an epoch is a function of (seed, epoch): nothing random needs to be saved.
    """

    def __init__(
        self,
        student: nn.Module,
        method: Method,
        teachers: Mapping[str, AskedTeacher],
        train: Split,
        schedule: Schedule,
        seed: int,
        options: Options | None = None,
        warm_up: WarmUp | None = None,
        monitor: Split | None = None,
        how: Speed | None = None,
    ) -> None:
        self.student, self.method, self.watch = student, method, Watch(train.labels.device)
        self.asked = dict(teachers)
        self.train, self.schedule, self.seed = train, schedule, seed
        self.options, self.warm_up = options or Options(), warm_up
        self.monitor = train if monitor is None else monitor
        device = train.labels.device
        how = how or Speed(graphs=self.options.graphs)
        self.speed = replace(how, compile_for=schedule.batch_size if self.options.compile else 0)
        speed.choose(student, self.speed)
        self.rescue = Rescue(student, device, active=device.type == "cuda" and not self.speed.graphs)
        self.teachers: dict[str, Teacher] = {role: self._prepared(asked) for role, asked in teachers.items()}
        self.average = WeightAverage(self.options.averaging_decay)
        self.epoch = 0
        self.optimizer = torch.optim.SGD(
            student.parameters(),
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
            nesterov=self.options.nesterov,
            foreach=True,  # a call for all parameters, on the CPU too
        )
        self.scheduler = scheduler(schedule, self.optimizer, self.options.drop_once)
        for each in (method, *([warm_up.method] if warm_up else [])):
            each.setup(train.num_classes, device)

    def _prepared(self, asked: AskedTeacher) -> Teacher:
        """A teacher as methods see it."""
        watched = WatchedTeacher(asked, self.watch)
        return watched if self.options.precision == "fp32" else speed.InFloat(watched, self.train.labels.device)

    @property
    def deployed(self) -> nn.Module:
        """What is evaluated and kept: the average of the weights where there is one, else the student."""
        return self.average.deployed(self.student)

    def run(self, on_epoch: Callable[[EpochEnd], None]) -> None:
        """Train what is left. Raises: NonFinite."""
        while self.epoch < self.schedule.epochs:
            on_epoch(self.run_epoch())

    def run_epoch(self) -> EpochEnd:
        """Train one epoch and let the method draw its conclusions."""
        number = self.epoch + 1
        method = self._method(number)
        method.start_epoch(self._epoch(number), self._measured(method, number))
        for asked in self.asked.values():
            asked.start_epoch(number)
        torch.manual_seed(self.seed * 2_000_003 + number)
        rate = self.optimizer.param_groups[0]["lr"]
        means = self._batches(method, number)
        self.scheduler.step()
        require_epoch(self.watch, means, number)
        logged = method.end_epoch({**means.means(), "count": means.count}, self._epoch(number))
        require_classes(logged, means.count, number)
        self._take_average(number)
        self.epoch = number
        return EpochEnd(number, self._metrics(means, logged, rate))

    def _method(self, number: int) -> Method:
        return self.warm_up.method if self.warm_up and number <= self.warm_up.epochs else self.method

    def _batches(self, method: Method, number: int) -> ClassMeans:
        self.student.train()
        self.watch.begin()
        means = ClassMeans(self.train.num_classes, self.train.labels.device)
        step: Callable[[Batch], None] = lambda batch: self._step(method, means, batch)  # noqa: E731
        if self.speed.graphs and method.repeatable() and self.train.labels.is_cuda:
            step = Replayed(step, self.schedule.batch_size)
        for batch in self.train.batches(self.schedule.batch_size, self.seed, number, method.class_sampling):
            step(batch)
        return means

    def _step(self, method: Method, means: ClassMeans, batch: Batch) -> None:
        """One batch. Nothing in here waits for the device."""
        found = self.rescue.run(method, partial(self._gradients, method, batch))
        self.optimizer.step()
        means.add(batch.y, {**found.per_sample, "loss": found.loss.detach().expand(len(batch.y))})
        self.watch.end_step(found)

    def _gradients(self, method: Method, batch: Batch) -> Step:
        """A method's step on one batch, and its gradient in the student's parameters."""
        with speed.autocast(batch.x.device, self.options.precision):
            found = method.step(self.student, self.teachers, batch)
        self.optimizer.zero_grad(set_to_none=True)
        found.loss.backward()
        return found

    def _measured(self, method: Method, number: int) -> dict[str, Tensor] | None:
        """Class means of what the method measures before an epoch. Draws from a generator state of its own:
        a method that measures and learns nothing from it trains as if it had not."""
        where = method.measured_on()
        if not where:
            return None
        torch.manual_seed(self.seed * 2_000_003 + number + 1_000_000)
        split = self.train if where == "train" else self.monitor
        means = ClassMeans(split.num_classes, split.labels.device)
        with torch.no_grad(), frozen_batch_norm(self.student):
            for rows in torch.arange(len(split), device=split.labels.device).split(self.schedule.batch_size):
                batch = split.at(rows)
                means.add(batch.y, method.measure(self.student, batch))
        require_classes(means.means(), means.count, number, "measured-")
        return {**means.means(), "count": means.count}

    def _take_average(self, number: int) -> None:
        options, method = self.options, self.method
        started = number > round(options.averaging_start * self.schedule.horizon)
        if options.averaging == "none" or not started:
            return
        if options.averaging == "fawa":
            attack = (method.eps, method.step_size, method.num_steps)
            if worst_class_accuracy(self.student, self.monitor, *attack) < options.averaging_floor:
                return
        self.average.update(self.student)

    def _epoch(self, number: int) -> Epoch:
        """Where the method of epoch `number` stands, counted from where it took over."""
        now = self.schedule.lr_scale(number, self.optimizer.param_groups[0]["lr"])
        first = self.warm_up.epochs if self.warm_up else 0
        if number <= first:
            return Epoch(number, first, now)
        return Epoch(number - first, self.schedule.horizon - first, now)

    def _metrics(self, means: ClassMeans, logged: Mapping[str, Tensor], rate: float) -> dict[str, float]:
        found = {"learning_rate": rate, "train/loss": means.overall()["loss"]}
        found |= {"memory/on_host": 1.0} if self.rescue.on_host else {}
        named = {"adv_correct": "train/robust_accuracy", "clean_correct": "train/clean_accuracy"}
        for signal, name in named.items():
            if signal in means.sums:
                found[name] = means.overall()[signal]
                found |= by_class(name, means.means()[signal])
        for name, values in logged.items():
            found |= by_class(name, values)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "epoch": self.epoch,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "method": self.method.state_dict(),
            "warm_up": self.warm_up.method.state_dict() if self.warm_up else {},
            "average": self.average.state_dict(),
            "counts": {role: asdict(asked.count) for role, asked in self.asked.items()},  # no part of any number
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.epoch = int(state["epoch"])
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore(self.scheduler, state["scheduler"])
        self.method.load_state_dict(state["method"])
        if self.warm_up:
            self.warm_up.method.load_state_dict(state["warm_up"])
        self.average.load_state_dict(state["average"])
        for role, count in state.get("counts", {}).items():
            self.asked[role].count = Count(**count)


def by_class(name: str, values: Tensor) -> dict[str, float]:
    """{name/class_00: ...} of a (C,) tensor; a class without a value is left out."""
    numbers = values.tolist()
    return {f"{name}/class_{c:02d}": v for c, v in enumerate(numbers) if math.isfinite(v)}
