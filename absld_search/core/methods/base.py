"""What a method is, and what methods share per sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from absld_search.core import attacks
from absld_search.core.data import Batch
from absld_search.core.losses import cross_entropy, kl_div
from absld_search.words import UsageError, integer, number, require_known, unknown


class Teacher(Protocol):
    """A trained network that methods learn from."""

    def clean_logits(self, batch: Batch) -> Tensor:
        """Its logits on the batch's views, (B, C), without gradient."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The network itself, with gradient to x."""
        ...


class Step(NamedTuple):
    """What a method makes of one batch."""

    loss: Tensor  # scalar, ready for backward()
    per_sample: dict[str, Tensor]  # (B,) each, detached; the trainer averages them per class over the epoch


class Epoch(NamedTuple):
    """Where the training stands when an epoch ends."""

    number: int  # 1 ... total
    total: int
    lr_scale: float  # learning rate now / at the start


def knob(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    options: tuple[str, ...] = (),
    doc: str = "",
) -> Any:
    """A hyperparameter: its paper's value and what it may be (low <= value <= high, value > above)."""
    rules = {"low": low, "high": high, "above": above, "options": options, "doc": doc}
    return field(default=default, metadata=rules)


@dataclass
class Method:
    """A paper. Fields are its hyperparameters with its values; state lives in `state_dict`."""

    teacher_roles: ClassVar[tuple[str, ...]] = ()

    eps: float = knob(8 / 255, low=0, high=1, doc="L-infinity radius, pixel units of [0, 1]")
    step_size: float = knob(2 / 255, above=0, high=1, doc="attack step, pixel units")
    num_steps: int = knob(10, low=1, doc="attack steps in training")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        """Called once before the first epoch."""
        self.num_classes, self.device = num_classes, device

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        """The paper's "for each batch"."""
        raise NotImplementedError

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        """The paper's "for each epoch": {signal: (C,)}, nan for a class without a sample -> what is logged."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """What must be in a checkpoint beside the student."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take a checkpoint's state back."""

    def attack(self, student: nn.Module, x: Tensor, loss_fn: attacks.LossFn, start: str) -> Tensor:
        """This method's training attack: x (B, ...) -> x_adv, with the student in eval mode throughout."""
        noise = attacks.start_noise(x, start, self.eps)
        with attacks.frozen_batch_norm(student):
            return attacks.pgd(x, loss_fn, self.eps, self.step_size, self.num_steps, noise)


def distill(
    method: Method, student: nn.Module, batch: Batch, targets: tuple[Tensor, Tensor], adv_weight: float
) -> Step:
    """RSLAD's step (Zi et al., ICCV 2021, arXiv:2108.07969) for any (adversarial, clean) soft labels.

    The attack ascends KL(adv labels || student); the loss is `adv_weight` of the adversarial and the rest of
    the clean divergence, each averaged over batch *and* classes as in the released code, 1/C of the sum in
    the paper's equation.
    """
    adv_targets, clean_targets = targets
    x_adv = method.attack(student, batch.x, lambda x: kl_div(adv_targets, student(x)), start="gaussian")
    adv_logits, clean_logits = student(x_adv), student(batch.x)
    adv = kl_div(adv_targets, adv_logits).mean() / method.num_classes
    clean = kl_div(clean_targets, clean_logits).mean() / method.num_classes
    loss = adv_weight * adv + (1 - adv_weight) * clean
    return Step(loss, signals(batch.y, adv=adv_logits, clean=clean_logits))


@torch.no_grad()
def signals(y: Tensor, **logits: Tensor) -> dict[str, Tensor]:
    """For each kind of logits (B, C): its hard-label risk `<kind>_risk`, the cross-entropy, and whether it is
    right, `<kind>_correct`; (B,) each."""
    found: dict[str, Tensor] = {}
    for kind, values in logits.items():
        found[f"{kind}_risk"] = cross_entropy(values, y)
        found[f"{kind}_correct"] = (values.argmax(1) == y).float()
    return found


def knobs(method: type[Method]) -> dict[str, dataclasses.Field[Any]]:
    """The hyperparameters of a method by name."""
    return {f.name: f for f in dataclasses.fields(method) if f.metadata}


def checked(method: type[Method], name: str, value: object) -> float | int | str:
    """`value` in the type and range of that knob. Raises: UsageError naming knob, range and nearest word."""
    known = knobs(method)
    if name not in known:
        raise unknown("parameter", name, known)
    knob_, kind = known[name], type(known[name].default)
    if kind is str:
        return require_known(name, str(value), knob_.metadata["options"])
    return in_range(name, integer(name, value) if kind is int else number(name, value), knob_.metadata)


def in_range(name: str, value: float, rules: Mapping[str, Any]) -> float:
    """`value` if it obeys `rules` (low, high, above). Raises: UsageError."""
    low, high, above = rules.get("low"), rules.get("high"), rules.get("above")
    if low is not None and value < low:
        raise UsageError(f"{name} must be at least {low:g}, not {value:g}.")
    if above is not None and value <= above:
        raise UsageError(f"{name} must be greater than {above:g}, not {value:g}.")
    if high is not None and value > high:
        raise UsageError(f"{name} must be at most {high:g}, not {value:g}.")
    return value
