"""One training in several processes: each takes its slice of every batch, and all of them take the same step.

The numbers are those of one process with the whole batch, up to the order of sums: gradients, class sums and batch
norm's statistics are summed over the processes, and each process draws the attack's noise for the whole batch and keeps
its slice. That holds for a loss that is a mean over samples, so only the methods of `METHODS` can be trained so.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from absld_search.core import speed
from absld_search.core.data import Batch
from absld_search.core.losses import ClassMeans
from absld_search.core.methods.base import Method, Step
from absld_search.core.trainer import Trainer
from absld_search.words import UsageError, require_known

METHODS = ("absld", "rslad", "sat", "trades")  # whose loss is a mean over samples, and which draw like the batch
MEETING = timedelta(minutes=10)  # for all to come; one that has not begun by then is not coming
PATIENCE = timedelta(hours=6)  # one process evaluates while the others wait
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Group:
    """The processes of a training, and which of them this is: the one of rank 0 evaluates, writes and reports."""

    rank: int
    size: int
    meeting: Path  # a file that does not exist yet, in a folder that all of them see


def require(method: str, size: int) -> None:
    """Raises: UsageError where `method` cannot be trained in `size` processes."""
    if size > 1:
        require_known("--processes-per-trial: method", method, METHODS)


@contextmanager
def joined(group: Group, device: str) -> Iterator[None]:
    """Inside, this process is one of the group. NCCL between GPUs, gloo between CPUs.

    Raises: TimeoutError where one does not come.
    """
    store = dist.FileStore(str(group.meeting), group.size)
    store.set(f"here-{group.rank}", "")
    try:
        store.wait([f"here-{rank}" for rank in range(group.size)], MEETING)
    except RuntimeError as error:  # that is all that torch says
        raise TimeoutError(f"a training's {group.size} processes have not met within {MEETING}") from error
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


class SharedTrainer(Trainer):
    """A `Trainer` that is one of a group; all of them are made alike, and stand at the same epoch."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.rank, self.size, self.weight = dist.get_rank(), dist.get_world_size(), 1.0
        last = len(self.train) % self.schedule.batch_size or self.schedule.batch_size
        if min(last, self.schedule.batch_size) < self.size:
            raise UsageError(f"batch_size: a batch of {last} images can't be shared by {self.size} processes.")
        self.rescue.active = False  # a step that one process repeats would leave the others waiting
        share_batch_norm(self.student)

    def agree(self) -> None:
        """Go on from the state of the process of rank 0, which may have read a checkpoint."""
        state = sent_from_first(self.state_dict(), self.train.labels.device)
        if self.rank:
            self.load_state_dict(state)

    def _batches(self, method: Method, number: int) -> ClassMeans:
        means = super()._batches(method, number)
        means.sum_over_processes()
        for place in self.watch.first.values():  # all end, or none: nobody waits for one that has stopped
            dist.all_reduce(place, dist.ReduceOp.MIN)
        return means

    def _step(self, method: Method, means: ClassMeans, batch: Batch) -> None:
        rows = slice_of(len(batch.y), self.rank, self.size)
        self.weight = (rows.stop - rows.start) / len(batch.y)
        with WholeBatchNoise(len(batch.y), rows):
            super()._step(method, means, Batch(*(part[rows] for part in batch)))

    def _gradients(self, method: Method, batch: Batch) -> Step:
        with speed.autocast(batch.x.device, self.options.precision):
            found = method.step(self.student, self.teachers, batch)
        self.optimizer.zero_grad(set_to_none=True)
        # Weighted before and not after: batch norm's gradient crosses from one slice to another.
        (found.loss * self.weight).backward()
        self._sum_gradients()
        return found

    def _sum_gradients(self) -> None:
        parameters = [each for each in self.student.parameters() if each.requires_grad]
        for each in parameters:
            each.grad = torch.zeros_like(each) if each.grad is None else each.grad
        flat = torch.cat([each.grad.reshape(-1) for each in parameters])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        for each, part in zip(parameters, flat.split([each.numel() for each in parameters]), strict=True):
            each.grad.copy_(part.view_as(each))  # type: ignore[union-attr]


def slice_of(count: int, rank: int, size: int) -> slice:
    """The rows of a batch of `count` that are a process's; no two processes differ by more than one row."""
    return slice(count * rank // size, count * (rank + 1) // size)


class WholeBatchNoise(TorchFunctionMode):
    """Inside, noise drawn like a slice of a batch is that slice of the noise for the whole batch."""

    def __init__(self, count: int, rows: slice) -> None:
        super().__init__()
        self.count, self.rows = count, rows

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        more = dict(kwargs or {})
        if func not in (torch.randn_like, torch.rand_like) or len(args[0]) != self.rows.stop - self.rows.start:
            return func(*args, **more)
        like: Tensor = args[0]
        whole = like.new_empty((self.count, *like.shape[1:]))
        if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
            whole = whole.to(memory_format=torch.channels_last)  # noise is drawn in the order of memory
        return func(whole, **more)[self.rows]


def share_batch_norm(model: nn.Module) -> None:
    """Let every batch norm of `model`, in place, take its statistics over the slices of all processes.

    Names, types and what a checkpoint holds stay what they are; in eval mode nothing changes.
    """
    for module in model.modules():
        if isinstance(module, NORMS):
            module.forward = MethodType(_normalised, module)  # type: ignore[method-assign]


def _normalised(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm over all processes (Ioffe and Szegedy, ICML 2015), the running variance unbiased as torch's."""
    if not self.training:
        return type(self).forward(self, x)
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    sums = _Summed.apply(torch.cat([wide.sum(axes), wide.new_tensor([wide.numel() / x.shape[1]])]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    centred = wide - mean.view(shape)
    variance = _Summed.apply((centred * centred).sum(axes)) / count
    moved = float(self.momentum or 0.1)  # no network here asks for a cumulative average
    with torch.no_grad():
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), moved)  # type: ignore[union-attr]
        unbiased = (variance * count / (count - 1)).to(self.running_var.dtype)  # type: ignore[union-attr]
        self.running_var.lerp_(unbiased, moved)  # type: ignore[union-attr]
    found = centred * (variance + self.eps).rsqrt().view(shape)
    return (found * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


class _Summed(torch.autograd.Function):
    """The sum over all processes. A part of it moves the losses of all of them, so its gradient is a sum too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sent_from_first(state: Mapping[str, Any], device: torch.device) -> Mapping[str, Any]:
    """The state of the process of rank 0, in every process; read as checkpoints are, so that it can run nothing."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    sent = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8).to(device)
    size = torch.tensor([len(sent)], device=device)
    dist.broadcast(size, 0)
    if dist.get_rank():
        sent = torch.empty(int(size), dtype=torch.uint8, device=device)
    dist.broadcast(sent, 0)
    found: Mapping[str, Any] = torch.load(io.BytesIO(sent.cpu().numpy().tobytes()), weights_only=True)
    return found
