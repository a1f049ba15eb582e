"""Out of memory: a step that did not fit is done once more, with what autograd saves kept on the host.

The mathematics stays the same to the bit, and so does the batch: the numbers that a backward pass needs are moved to
host memory and back, nothing is split. (Micro-batches would not do: batch norm sees the whole batch, and some methods'
losses weigh samples against each other.) It is slow, and much better than losing the training.
"""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from absld_search.core.methods.base import Method, Step

log = logging.getLogger(__name__)
HOST = "can't allocate memory"  # how torch says that the machine's own memory is full: a plain RuntimeError


class Rescue:
    """Runs steps, and repeats the first that runs out of the device's memory; from then on it keeps to the host.

    Before a step it takes down what the step changes: the generators' states, batch norm's buffers, and the method's
    own state. `active` only on a device that has a memory of its own, for this costs a few small copies a step, and not
    where whole steps are replayed as a graph.
    """

    def __init__(self, student: nn.Module, device: torch.device, active: bool) -> None:
        self.student, self.device = student, device
        self.active, self.on_host = active, False

    def run(self, method: Method, work: Callable[[], Step]) -> Step:
        """What `work` returns: forward, attack and backward of one batch. Raises: torch.OutOfMemoryError the second
        time."""
        if not self.active:
            return work()
        before = _Before(self.student, method, self.device)
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
            before.restore()
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
    """What a step changes beside the gradients, as it was."""

    def __init__(self, student: nn.Module, method: Method, device: torch.device) -> None:
        self.student, self.method, self.device = student, method, device
        self.random = torch.get_rng_state()
        self.device_random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self.buffers = {name: buffer.clone() for name, buffer in student.named_buffers()}
        self.state = copy.deepcopy(vars(method))

    def restore(self) -> None:
        torch.set_rng_state(self.random)
        if self.device_random is not None:
            torch.cuda.set_rng_state(self.device_random, self.device)
        with torch.no_grad():
            for name, buffer in self.student.named_buffers():
                buffer.copy_(self.buffers[name])
        vars(self.method).clear()
        vars(self.method).update(self.state)


def reason(error: BaseException) -> str | None:
    """`oom` where the device's memory was full, `oom_host` where the machine's was, None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return "oom"
    full = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and HOST in str(error))
    return "oom_host" if full else None
