"""Whole training steps replayed as one CUDA graph. UNMEASURED: written for a GPU, and never yet run on one.

A step of ABSLD on ResNet-18 launches more than a thousand kernels; a graph launches them at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from absld_search.core.data import Batch

WARM_UP = 3  # steps that run as they are before one is recorded: allocations, momentum, compilation


class Replayed:
    """A step on batches: the first few run as they are, one is recorded, the others are replayed.

    Made anew every epoch, because what is recorded holds the epoch's learning rate and temperatures. Batches of
    another size run as they are. Every batch is trained on exactly once: recording computes nothing.
    """

    def __init__(self, step: Callable[[Batch], None], batch_size: int) -> None:
        self.step, self.batch_size, self.seen = step, batch_size, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream()  # warming up must not happen on the stream that records

    def __call__(self, batch: Batch) -> None:
        self.seen += 1
        if len(batch.y) != self.batch_size or self.seen <= WARM_UP:
            self._aside(batch)
            return
        if self.graph is None:
            self.batch = Batch(*(part.clone() for part in batch))
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step(self.batch)
        for mine, new in zip(self.batch, batch, strict=True):
            mine.copy_(new)
        self.graph.replay()

    def _aside(self, batch: Batch) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
