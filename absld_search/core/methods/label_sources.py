"""Where soft labels come from, as logits that a temperature can still sharpen or smooth."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core.losses import soft_labels

SOURCES = ("teacher", "ema", "label_smoothing")


def smoothed_logits(y: Tensor, num_classes: int, smoothing: float, like: Tensor) -> Tensor:
    """Logits (B, C) whose softmax is 1 - smoothing on y and the rest spread evenly.

    At temperature tau the label is still of that form, with an amount of smoothing that depends on tau alone:
    class-wise label smoothing, moved by the same rule as a teacher's labels.
    """
    height = math.log((1 - smoothing) * (num_classes - 1) / smoothing)
    return torch.zeros(len(y), num_classes, device=y.device, dtype=like.dtype).scatter(1, y[:, None], height)


class SelfTeacher:
    """An exponential average of the student's own weights, asked in eval mode."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.model: nn.Module | None = None
        self._pending: Mapping[str, Tensor] | None = None

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """Take the student in; called before every step, so the first labels are the start's."""
        if self.model is None:
            self.model = copy.deepcopy(student).eval().requires_grad_(False)
            if self._pending is not None:
                self.model.load_state_dict(self._pending)
        for mine, new in zip(self.model.state_dict().values(), student.state_dict().values(), strict=True):
            mine.copy_(self.decay * mine + (1 - self.decay) * new if new.is_floating_point() else new)

    @torch.no_grad()
    def logits(self, x: Tensor, y: Tensor, hard_share: float) -> Tensor:
        """log of `hard_share` of the true label and the rest of the average's prediction: (B, C)."""
        assert self.model is not None
        predicted = soft_labels(self.model(x))
        truth = torch.zeros_like(predicted).scatter(1, y[:, None], 1.0)
        mixed = hard_share * truth + (1 - hard_share) * predicted
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.model is None else dict(self.model.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model, self._pending = None, state or None
