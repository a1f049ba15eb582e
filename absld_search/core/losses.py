"""Per-sample losses and class means. No mean over a batch hides in here: the caller writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]  # (student's logits at x, x) -> per-sample loss (B,) to ascend


@runtime_checkable
class Pull(Protocol):
    """An objective that knows its own gradient at the logits."""

    def pull(self, logits: Tensor) -> Tensor:
        """Gradient (B, C) of the objective's sum at the logits (B, C)."""
        ...


@dataclass(frozen=True, eq=False)
class Divergence:
    """The objective KL(targets || softmax(logits)), whose gradient is softmax(logits) - targets; targets (B, C)."""

    targets: Tensor

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        return kl_div(self.targets, logits)

    def pull(self, logits: Tensor) -> Tensor:
        return F.softmax(wide(logits), dim=1) - self.targets


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """The objective -log softmax(logits)[y], whose gradient is softmax(logits) less one at y; y (B,)."""

    y: Tensor

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        return cross_entropy(logits, self.y)

    def pull(self, logits: Tensor) -> Tensor:
        predicted = F.softmax(wide(logits), dim=1)
        return predicted.scatter_add(1, self.y[:, None], predicted.new_full((len(self.y), 1), -1.0))


def wide(logits: Tensor) -> Tensor:
    """In single precision where they are in half of it: what is rounded to three digits loses small differences."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def soft_labels(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """softmax(logits / temperature): (B, C) and () or (B,) -> (B, C). A new tensor; the logits stay as they are.

    Differs from the released code: ABSLD's divides its logits in place, so that two "copies" which share
    storage both end up divided by the product of both temperatures.
    """
    if isinstance(temperature, Tensor) and temperature.ndim == 1:
        temperature = temperature[:, None]
    return F.softmax(wide(logits) / temperature, dim=1)


def kl_div(targets: Tensor, logits: Tensor) -> Tensor:
    """KL(targets || softmax(logits)) of each sample, summed over classes: (B, C), (B, C) -> (B,).

    Exact at extreme logits, where log(softmax) is -inf, and at targets of exactly zero, with gradient to both:
    without the floor, the derivative of t * log(t) would be 0/0 at a target that has underflowed.
    """
    floored = targets.clamp_min(torch.finfo(targets.dtype).tiny)
    return (torch.special.xlogy(targets, floored) - targets * F.log_softmax(wide(logits), dim=1)).sum(1)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each sample: (B, C), (B,) -> (B,)."""
    return F.cross_entropy(wide(logits), y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The best wrong logit minus the right one, positive where the sample is lost: (B, C), (B,) -> (B,)."""
    logits = wide(logits)
    right = logits.gather(1, y[:, None])[:, 0]
    wrong = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return wrong - right


def cw_loss(logits: Tensor, y: Tensor, confidence: float = 50.0) -> Tensor:
    """The Carlini-Wagner objective that an attack ascends (S&P 2017, arXiv:1608.04644): the margin, cut off
    above `confidence`: (B, C), (B,) -> (B,)."""
    return margin(logits, y).clamp(max=confidence)


@torch.no_grad()
def signals(y: Tensor, **logits: Tensor) -> dict[str, Tensor]:
    """For each kind of logits (B, C): its hard-label risk `<kind>_risk`, the cross-entropy, and whether it is
    right, `<kind>_correct`; (B,) each."""
    found: dict[str, Tensor] = {}
    for kind, values in logits.items():
        found[f"{kind}_risk"] = cross_entropy(values, y)
        found[f"{kind}_correct"] = (values.argmax(1) == y).float()
    return found


class ClassMeans:
    """Means per class over an epoch, of any number of per-sample signals, without waiting for the device."""

    def __init__(self, num_classes: int, device: torch.device | str) -> None:
        self.num_classes, self.device = num_classes, device
        self.count = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.sums: dict[str, Tensor] = {}

    def add(self, y: Tensor, per_sample: dict[str, Tensor]) -> None:
        """Take in one batch: labels (B,) and signals (B,)."""
        self.count.index_add_(0, y, torch.ones_like(y, dtype=torch.float64))
        for name, values in per_sample.items():
            total = self.sums.setdefault(name, torch.zeros_like(self.count))
            total.index_add_(0, y, values.detach().to(torch.float64))

    def sum_over_processes(self) -> None:
        """Of what every process of one training has seen its part: all then have the whole."""
        if dist.is_available() and dist.is_initialized():
            for total in (self.count, *(self.sums[name] for name in sorted(self.sums))):
                dist.all_reduce(total)

    def means(self) -> dict[str, Tensor]:
        """{signal: (C,)} in float64; nan for a class without a sample."""
        return {name: total / self.count for name, total in self.sums.items()}

    def overall(self) -> dict[str, float]:
        """{signal: mean over all samples}."""
        return {name: float(total.sum() / self.count.sum()) for name, total in self.sums.items()}


class Window:
    """Class means over some iterations, of all processes of a training. Epochs are no boundary: a workload may have
    fewer iterations in one than such a window is wide."""

    def __init__(self, num_classes: int, device: torch.device | str) -> None:
        self.total, self.iterations = ClassMeans(num_classes, device), 0

    def add(self, y: Tensor, per_sample: dict[str, Tensor]) -> None:
        """Take in one iteration."""
        batch = ClassMeans(self.total.num_classes, self.total.device)
        batch.add(y, per_sample)
        batch.sum_over_processes()
        self.total.count += batch.count
        for name, found in batch.sums.items():
            self.total.sums[name] = self.total.sums.get(name, torch.zeros_like(found)) + found
        self.iterations += 1

    def emptied(self) -> dict[str, Tensor]:
        """{signal: (C,)} and "count" of what was taken in since the last time; another window begins."""
        total = self.total
        self.total, self.iterations = ClassMeans(total.num_classes, total.device), 0
        return {**total.means(), "count": total.count}

    def state_dict(self) -> dict[str, Any]:
        """A copy of what was taken in."""
        sums = {name: found.clone() for name, found in self.total.sums.items()}
        return {"iterations": self.iterations, "count": self.total.count.clone(), "sums": sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; from an empty state with an empty window."""
        self.emptied()
        self.iterations = state.get("iterations", 0)
        if self.iterations:
            self.total.count = state["count"].to(self.total.device).clone()
            self.total.sums = {name: found.to(self.total.device).clone() for name, found in state["sums"].items()}
