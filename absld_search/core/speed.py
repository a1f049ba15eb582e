"""How a network is computed, apart from what it computes: switches, kept beside the network they belong to.

The exact switches change rounding and nothing else; `benchmarks/train_step.py gate` and tests hold each of them to
1e-12 in double precision. They are on for every network unless somebody says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from absld_search.core.files import cache_folder

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Speed:
    """Which short cuts a network takes."""

    fold: bool = True  # batch norm inside the convolutions, and activations in place, while the network is frozen
    channels_last: bool = True  # images and weights with their channels side by side in memory
    minimal_filters: bool = True  # wide 3x3 convolutions of a folded network, on a CPU, in fewer multiplications
    closed_form: bool = True  # an attack starts backward from the objective's known gradient at the logits
    compile_for: int = 0  # batch size for which networks are compiled; 0: never. Other sizes run as they are
    graphs: bool = False  # CUDA only, and unmeasured: whole steps are replayed as one graph


EXACT = ("fold", "channels_last", "minimal_filters", "closed_form")
_CHOSEN: WeakKeyDictionary[nn.Module, Speed] = WeakKeyDictionary()


def of(model: nn.Module) -> Speed:
    """The switches of `model`."""
    return _CHOSEN.get(model, Speed())


def choose(model: nn.Module, speed: Speed) -> None:
    """Let `model`, in place, be computed so from now on; copies of it start from the defaults again."""
    _CHOSEN[model] = speed
    if speed.channels_last:
        model.to(memory_format=torch.channels_last)
    if speed.compile_for:
        model._compiled_call_impl = compiled(model, speed.compile_for)  # what nn.Module.compile sets; not copied


@contextmanager
def standing_in(model: nn.Module, call: Callable[..., Any]) -> Iterator[None]:
    """Inside, calling `model` calls `call`; its parameters and its state stay what they are."""
    before = model._compiled_call_impl
    model._compiled_call_impl = call
    try:
        yield
    finally:
        model._compiled_call_impl = before


def compiled(model: nn.Module, batch_size: int) -> Callable[[Tensor], Tensor]:
    """`model` compiled for batches of that size alone; others, such as an epoch's last, run as they are.

    What is compiled is kept on disk for all processes that share the cache folder. Weights are inputs of what is
    compiled and hyperparameters no part of it, so a second model of the same architecture compiles nothing.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    fast = torch.compile(model._call_impl, dynamic=False)
    return lambda x: fast(x) if len(x) == batch_size else model._call_impl(x)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where "bf16" computes in bfloat16 what can be; losses widen their logits themselves.

    Without the cache of cast weights: one filled where gradients are off would cut them off where they are on.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


class _Teacher(Protocol):
    def clean_logits(self, batch: Any) -> Tensor: ...
    def __call__(self, x: Tensor) -> Tensor: ...


class InFloat:
    """A teacher that is asked in single precision, whatever the student computes in: a label is a label."""

    def __init__(self, teacher: _Teacher, device: torch.device) -> None:
        self.teacher, self.device = teacher, device

    def clean_logits(self, batch: Any) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.teacher.clean_logits(batch)

    def __call__(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.teacher(x)
