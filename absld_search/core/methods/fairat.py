"""FairAT-style training, after Mou et al., Frontiers of Computer Science 19(3), 2025; only its abstract was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.attacks import frozen_batch_norm
from absld_search.core.data import Batch
from absld_search.core.losses import cross_entropy
from absld_search.core.methods.adversarial import standard_attack
from absld_search.core.methods.base import Method, Step, Teacher, knob, signals


@dataclass
class FairAT(Method):
    """Augment the images that the model is least certain of: call its results FairAT-style.

    The hardest `hard_share` of every batch by `score` are augmented by `operation`, and replace their plain
    images or are appended to the batch. Formula: CE(S(x'), y), where x' ascends CE(S(x'), y).

    Not stated in what could be read, and so free here: the share that is hard, whether hardness is judged on
    clean or attacked images, the augmentation, replacing or appending, and the base's settings.
    """

    cost: ClassVar[str] = "F; attack 10 (F+B); update F+B; times 1 + hard_share where images are appended"

    attack_start: str = knob("uniform", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")
    score: str = knob("clean_ce", options=("clean_ce", "entropy", "noise_ce"), doc="what makes an image hard")
    hard_share: float = knob(0.3, low=0, high=1, doc="of every batch")
    operation: str = knob("cutout", options=("cutout", "shift"), doc="how hard images are augmented")
    strength: float = knob(0.25, low=0, high=1, doc="side of the hole, or longest shift, over the image's side")
    mode: str = knob("replace", options=("replace", "append"), doc="what becomes of the plain image")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        size = len(batch.y)
        hard = self.hardness(student, batch).topk(round(self.hard_share * size)).indices
        images = self.augmented(batch.x[hard])
        if self.mode == "replace":
            batch = batch._replace(x=batch.x.index_copy(0, hard, images))
        else:
            extra = batch._replace(x=images, y=batch.y[hard], index=batch.index[hard], view=batch.view[hard])
            batch = Batch(*(torch.cat(pair) for pair in zip(batch, extra, strict=True)))
        adv_logits = student(standard_attack(self, student, batch))
        loss = self.mean(cross_entropy(adv_logits, batch.y), batch.y)
        return Step(loss, signals(batch.y[:size], adv=adv_logits[:size]))

    @torch.no_grad()
    def hardness(self, student: nn.Module, batch: Batch) -> Tensor:
        """(B,): the larger, the harder."""
        x = batch.x
        if self.score == "noise_ce":
            x = (x + self.eps * torch.randn_like(x).sign()).clamp(0, 1)
        with frozen_batch_norm(student):
            logits = student(x)
        if self.score == "entropy":
            return torch.special.entr(logits.softmax(1)).sum(1)
        return cross_entropy(logits, batch.y)

    def augmented(self, x: Tensor) -> Tensor:
        """New images (n, ch, H, W): a hole of zeros, or a shift with zeros coming in."""
        height, width = x.shape[-2:]
        side = [max(1, round(self.strength * length)) for length in (height, width)]
        draws = torch.rand(2, len(x), device=x.device)
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        if self.operation == "cutout":
            top, left = (draws[0] * (height - side[0] + 1)).long(), (draws[1] * (width - side[1] + 1)).long()
            hole = _between(rows, top, side[0])[:, :, None] & _between(columns, left, side[1])[:, None, :]
            return x * ~hole[:, None]
        down, across = ((2 * draws[k] - 1) * (side[k] + 0.5) for k in (0, 1))
        return _shifted(_shifted(x, down.round().long(), 2), across.round().long(), 3)


def _between(at: Tensor, first: Tensor, length: int) -> Tensor:
    """(n, L): whether a position lies in [first, first + length)."""
    return (at[None] >= first[:, None]) & (at[None] < first[:, None] + length)


def _shifted(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Each image moved by its own number of pixels along `dim`, zeros coming in."""
    length = x.shape[dim]
    source = torch.arange(length, device=x.device)[None] - by[:, None]
    inside = (source >= 0) & (source < length)
    shape = [len(x), 1, 1, 1]
    shape[dim] = length
    source, inside = source.clamp(0, length - 1).view(shape), inside.view(shape)
    return x.gather(dim, source.expand_as(x)) * inside
