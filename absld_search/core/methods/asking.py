"""What methods ask of a teacher, and what the trainer tells it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from absld_search.core.data import Batch
from absld_search.core.logit_bank import Count


class Teacher(Protocol):
    """A trained network that methods learn from."""

    def clean_logits(self, batch: Batch) -> Tensor:
        """Its logits on the batch's views, (B, C), without gradient."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The network itself, with gradient to x."""
        ...


class AskedTeacher(Teacher, Protocol):
    """A teacher as the trainer knows it: a network, or a bank of what it said."""

    count: Count

    def start_epoch(self, number: int) -> None:
        """Told before the batches of epoch `number`."""
        ...
