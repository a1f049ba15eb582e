"""The teacher logit bank: a teacher's logits on every view of a stream, asked once on a node and then looked up.

The view of an image is a function of (image, epoch, stream), so every training of a stream (a seed) sees the same
views, and one of them asks the teacher for all. A block holds one epoch of a stream; a view that has occurred before,
in any stream, is copied and not asked again. A split whose images have one view needs one block for ever.

The blocks lie in `cache_folder()/logits`, on a cluster in each node's own. They may be deleted at any time: what is
needed is asked again. Where the disk is nearly full a training keeps the current block in its own memory instead.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from absld_search.core import folding, logit_blocks
from absld_search.core.data import Batch, Split
from absld_search.core.logit_blocks import Block, Place

CHUNK = {"cpu": 64, "cuda": 512}  # images that the teacher is asked about at a time, or fewer large ones
CACHED = 2**14  # pixels that a CPU is given at a time: 16 images of 32 x 32, whose activations stay in its cache
NO_VIEW = -1
SHARE = 16  # times as many are filled by one process before another may take over
log = logging.getLogger(__name__)


def chunk(split: Split) -> int:
    """How many images of `split` a teacher is asked about at a time; blocks made otherwise may have other bits."""
    device, (_, *sides) = split.labels.device.type, split.image_shape
    return min(CHUNK[device], max(1, CACHED // math.prod(sides))) if device == "cpu" else CHUNK[device]


class NonFiniteTeacher(ArithmeticError):
    """A teacher that gives nan or infinity: `nonfinite:teacher-<name>@<epoch>`."""


@dataclass
class Count:
    """How many images a training had the teacher's network look at, and how many answers it looked up."""

    asked: int = 0
    looked_up: int = 0


class Network:
    """A teacher that is asked anew for every batch. `model`: the network, or what builds it when it is first asked."""

    def __init__(self, model: nn.Module | Callable[[], nn.Module], name: str = "teacher") -> None:
        self._made, self.name, self.count = model, name, Count()

    @cached_property
    def model(self) -> nn.Module:
        """The network in eval mode, without gradients of its own; its weights never move."""
        with torch.inference_mode(False):  # whoever asks first, an attack may want a gradient through it later
            made = self._made if isinstance(self._made, nn.Module) else self._made()
            return folding.settled(made.eval().requires_grad_(False))

    def start_epoch(self, number: int) -> None:
        """Told before the batches of an epoch."""

    def __call__(self, x: Tensor) -> Tensor:
        self.count.asked += len(x)
        return self.model(x)

    @torch.no_grad()
    def clean_logits(self, batch: Batch) -> Tensor:
        """(B, C) logits on the batch's views."""
        return self(batch.x)


class LogitBank(Network):
    """A teacher whose answers on the views of `split` in `stream` are kept in `folder`.

    `folder` belongs to this teacher, these images, these views and this kind of device: whoever opens the bank says
    so by its name. Logits are float32: the bits that the settled network gives, which is always asked about chunks
    of one size, and so gives an image the same bits whoever shares its chunk.
    """

    def __init__(
        self, model: nn.Module | Callable[[], nn.Module], name: str, split: Split, stream: int, folder: Path
    ) -> None:
        super().__init__(model, name)
        assert split.num_views > 0, "views that cannot be numbered cannot be looked up"
        self.split, self.stream, self.folder = split, stream, folder
        self._num_views = split.num_views
        self.chunk = chunk(split)
        self.epoch, self._opened = 1, -1
        self._others: dict[Path, Block] = {}

    def start_epoch(self, number: int) -> None:
        self.epoch = number

    def clean_logits(self, batch: Batch) -> Tensor:
        """(B, C) logits on the batch's views, which must be those of the epoch that was started.

        On a CPU a batch of other views is put to the network; on a GPU, where looking would make the host wait, the
        rows in question are nan, which ends the training.
        """
        self.open()
        return self._on_cpu(batch) if batch.index.device.type == "cpu" else self._on_gpu(batch)

    def open(self) -> None:
        """Have this epoch's block ready: found, or filled."""
        epoch = self.epoch if self._num_views > 1 else 0
        if epoch != self._opened:
            self.block = self._block(epoch)
            self._views = np.append(self.block.keys - self.split.ids.cpu().numpy() * self._num_views, NO_VIEW)
            self._opened = epoch
            if self.split.labels.device.type != "cpu":
                self._move(self.block)

    def _on_cpu(self, batch: Batch) -> Tensor:
        rows = self._places.take(batch.index.numpy(), mode="clip")
        if self._views.take(rows).tobytes() != batch.view.numpy().tobytes():  # int64 both; faster than != and any
            return super().clean_logits(batch)
        self.count.looked_up += len(rows)
        return torch.from_numpy(self.block.logits.take(rows, axis=0))

    def _on_gpu(self, batch: Batch) -> Tensor:
        rows = self._places_there[batch.index.clamp(max=len(self._places_there) - 1)].clamp(max=len(self._keys) - 1)
        right = self._keys[rows] == batch.index * self._num_views + batch.view
        self.count.looked_up += len(rows)
        return torch.where(right[:, None], self._logits[rows], torch.nan)

    def _move(self, block: Block) -> None:
        """Into the memory of the GPU; always into the same memory, so that a recorded graph goes on reading it."""
        with warnings.catch_warnings():  # that the mapped file cannot be written, which nobody wants to
            warnings.simplefilter("ignore", UserWarning)
            keys, logits = torch.from_numpy(block.keys), torch.from_numpy(block.logits)
        if not hasattr(self, "_logits"):
            where = self.split.labels.device
            self._places_there = torch.from_numpy(self._places).to(where)
            self._keys, self._logits = keys.to(where), logits.to(where)
        else:
            self._keys.copy_(keys)
            self._logits.copy_(logits)

    @cached_property
    def _places(self) -> np.ndarray:
        """Image id -> row of a block; what is no image of the split leads to a row behind the last, of no view."""
        ids = self.split.ids.cpu().numpy()
        places = np.full(int(ids.max()) + 2, len(ids), dtype=np.int64)  # the last for all that lies beyond
        places[ids] = np.arange(len(ids))
        return places

    def _keys_of(self, epoch: int) -> np.ndarray:
        views = self.split.views_of(epoch, self.stream)
        return (self.split.ids * self.split.num_views + views).cpu().numpy()

    def _block(self, epoch: int) -> Block:
        stream = f"stream-{self.stream}" if self.split.num_views > 1 else "plain"
        path = self.folder / stream / f"epoch-{epoch:05d}.arrow"
        place = Place(path, self._keys_of(epoch), self.split.num_classes)
        found = place.read()
        if found is not None:
            return found
        self._look_around()
        size = 2 * logit_blocks.bytes_of(len(place.keys), place.num_classes)  # once in shares, once whole
        try:
            if logit_blocks.room_for(self.folder, size):
                share = SHARE * CHUNK[self.split.labels.device.type]
                return logit_blocks.filled(place, share, lambda rows: self._computed(place, epoch, rows))
            log.warning("the disk of %s is nearly full: the teacher's logits are kept in memory", self.folder)
        except OSError as error:
            log.warning("the teacher's logits are kept in memory: %s", error)
        return Block(place.keys, self._computed(place, epoch, slice(0, len(place.keys))))

    def _computed(self, place: Place, epoch: int, rows: slice) -> np.ndarray:
        """Logits (n, C) of `rows`: copied from other blocks where the view has occurred, else asked."""
        keys = place.keys[rows]
        logits = np.empty((len(keys), place.num_classes), dtype=np.float32)
        missing = np.ones(len(keys), dtype=bool)
        for block in self._others.values():
            same = missing & (block.keys[rows] == keys)
            logits[same] = block.logits[rows][same]
            missing &= ~same
            if not missing.any():
                return logits
        logits[missing] = self._ask(np.flatnonzero(missing) + rows.start, epoch)
        return logits

    def _look_around(self) -> None:
        """Map every block of this teacher on these images. Their rows are in the same order, so that comparing two
        columns of keys finds what they share."""
        for path in sorted(set(self.folder.glob("*/epoch-*.arrow")) - set(self._others)):
            block = logit_blocks.read(path)
            if block is not None and block.logits.shape == (len(self.split), self.split.num_classes):
                self._others[path] = block

    @torch.inference_mode()
    def _ask(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """(n, C) from the network itself, in chunks of one size, the last one filled up with its last image."""
        found = []
        for part in torch.from_numpy(rows).to(self.split.labels.device).split(self.chunk):
            whole = torch.cat([part, part[-1:].expand(self.chunk - len(part))])
            found.append(self(self.split.seen(whole, epoch, self.stream).x)[: len(part)].float())
        logits = torch.cat(found)
        if not logits.isfinite().all():
            raise NonFiniteTeacher(f"nonfinite:teacher-{self.name}@{epoch}")
        return logits.cpu().numpy()


def estimate(images: int, num_views: int, num_classes: int, epochs: int, streams: int) -> int:
    """Bytes that the bank of one teacher comes to: a block for every epoch of every stream, at most."""
    if not num_views:
        return 0
    return logit_blocks.bytes_of(images, num_classes) * (1 if num_views == 1 else epochs * streams)
