"""Out of memory: a step that did not fit is done once more, with what autograd saves kept on the host.

The mathematics stays the same to the bit, and so does the batch: the numbers that a backward pass needs are moved to
host memory and back, nothing is split. (Micro-batches would not do: batch norm sees the whole batch, and some methods'
losses weigh samples against each other.) It is slow, and much better than losing the training.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core.methods.base import Method, Step

log = logging.getLogger(__name__)
HOST = "can't allocate memory"  # how torch says that the machine's own memory is full: a plain RuntimeError


class Rescue:
    """Runs steps, and repeats the first that runs out of the device's memory; from then on it keeps to the host.

    Before a step it takes down what the step changes: the generators' states, batch norm's buffers, and the method's
    own state. `active` only on a device that has a memory of its own, for this costs three copies a step, and not
    where whole steps are replayed as a graph.
    """

    def __init__(self, student: nn.Module, device: torch.device, active: bool) -> None:
        self.student, self.device = student, device
        self.active, self.on_host = active, False
        self.before = _Before(student, device)

    def run(self, method: Method, work: Callable[[], Step]) -> Step:
        """What `work` returns: forward, attack and backward of one batch. Raises: torch.OutOfMemoryError the second
        time."""
        if not self.active:
            return work()
        self.before.note(method)
        if not self.on_host:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                said = str(error).splitlines()[0]
            # Only here, outside of the handler: the error holds the frames, and these the tensors.
            log.warning(
                "out of memory: from this step on activations wait on the host, same numbers, slower (%s)", said
            )
            self.on_host = True
            self._free()
            self.before.restore()
        with self._saving():
            return work()

    def _saving(self) -> AbstractContextManager[Any]:
        if self.device.type == "cpu":  # a test's: saved tensors are on the host already
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=True)

    def _free(self) -> None:
        self.student.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class _Before:
    """What a step changes beside the gradients, as it was when `note` was called last.

    Tensors are copied into memory that is kept from step to step, all of a kind by one call; the objects that hold them
    are noted attribute by attribute.
    """

    def __init__(self, student: nn.Module, device: torch.device) -> None:
        self.student, self.device = student, device
        self.copies: list[Tensor] = []

    def note(self, method: Method) -> None:
        self.random = torch.get_rng_state()
        self.device_random = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        self.tensors: list[Tensor] = list(self.student.buffers())
        self.holders: list[tuple[Holder, Holder]] = []
        self._look_into(vars(method))
        if [_kind(copy) for copy in self.copies] != [_kind(tensor) for tensor in self.tensors]:
            self.copies = [torch.empty_like(tensor) for tensor in self.tensors]
        _copy(self.copies, self.tensors)

    def restore(self) -> None:
        torch.set_rng_state(self.random)
        if self.device_random is not None:
            torch.cuda.set_rng_state(self.device_random, self.device)
        for holder, held in self.holders:
            holder.clear()
            holder.extend(held) if isinstance(holder, list) else holder.update(held)
        _copy(self.tensors, self.copies)

    def _look_into(self, value: object) -> None:
        """Find the tensors that `value` holds, and what holds them; all else cannot be changed in place."""
        if isinstance(value, Tensor):
            self.tensors.append(value)
        elif isinstance(value, nn.Module):
            self.tensors += [*value.parameters(), *value.buffers()]
        elif isinstance(value, (dict, list)):
            self.holders.append((value, value.copy()))
            for inner in value.values() if isinstance(value, dict) else value:
                self._look_into(inner)
        elif isinstance(value, tuple):
            for inner in value:
                self._look_into(inner)
        elif hasattr(value, "__dict__") and not callable(value):
            self._look_into(vars(value))


Holder = dict[Any, Any] | list[Any]


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device, tensor.stride()


@torch.no_grad()
def _copy(to: list[Tensor], tensors: list[Tensor]) -> None:
    """One call for each type: of several types at once a GPU copies tensor by tensor."""
    for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors):
        at = [number for number, tensor in enumerate(tensors) if (tensor.dtype, tensor.device) == kind]
        torch._foreach_copy_([to[number] for number in at], [tensors[number] for number in at])


def reason(error: BaseException) -> str | None:
    """`oom` where the device's memory was full, `oom_host` where the machine's was, None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return "oom"
    full = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and HOST in str(error))
    return "oom_host" if full else None
