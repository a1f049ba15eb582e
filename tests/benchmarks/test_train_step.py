"""Our step against the plain one: the same numbers, fewer calls, no waiting for the device."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from absld_search.core import models, teachers
from absld_search.core.data import Batch, Split
from absld_search.core.speed import Speed
from absld_search.workloads import CIFAR10
from benchmarks.plain import PlainABSLD
from benchmarks.train_step import OurStep, Table, gate

WAITS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::nonzero", "aten::equal",
    "aten::lift_fresh",  # `torch.tensor`: numbers of the host, which on a GPU are copied there
}  # fmt: skip


class Calls(TorchDispatchMode):
    """Counts operators; views, which compute nothing, apart."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.computing = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.name().split(".")[0]] += 1
        self.computing += not func.is_view
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(self.names[name] for name in WAITS)


def small_images(size: int) -> Batch:
    """8x8: what is called on a GPU does not depend on the size of an image.

    Minimal filters, a CPU's, are more calls on larger images; here they stand aside: the widest layers see one pixel.
    """
    x = torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(size) % 10
    return Batch(x, y, torch.arange(size), torch.zeros_like(y))


def counted(ours: OurStep, rescue: bool) -> Calls:
    """A step's calls; `rescue`: with what a GPU does beside, a note of what the step would change if it failed."""
    ours.trainer.rescue.active = rescue
    for _ in range(2):  # the copy with folded batch norm is made once, and the memory of what is noted
        ours.step()
    with Calls() as mine:
        ours.step()
    return mine


def test_no_step_waits_and_calls_are_at_most_45_percent() -> None:
    batch, student, teacher = (
        small_images(128),
        models.build("resnet-18", 10, 3, 0),
        models.build("resnet-8-4", 10, 3, 1),
    )
    plain = PlainABSLD(copy.deepcopy(student), teacher, 10)
    ours = OurStep(student, Table(teachers.Network(teacher).clean_logits(batch)), batch, Speed())
    mine = counted(ours, rescue=True)
    with Calls() as theirs:
        plain.step(batch.x, batch.y)
    assert theirs.waits >= 6 * 128, "the plain step does wait, so the counter counts"
    assert mine.waits == 0, mine.names & Counter(dict.fromkeys(WAITS, 1))
    assert mine.computing <= 0.45 * theirs.computing, (mine.computing, theirs.computing)
    print(mine.computing, theirs.computing, theirs.waits)


def test_a_rescue_in_waiting_costs_three_calls() -> None:
    batch, student = small_images(8), models.build("resnet-18", 10, 3, 0)
    ours = OurStep(student, Table(torch.zeros(8, 10)), batch, Speed(), num_steps=1)
    mine, without = counted(ours, rescue=True), counted(ours, rescue=False)
    assert 0 < mine.computing - without.computing <= 3, mine.names - without.names
    assert mine.waits == without.waits == 0


@pytest.mark.parametrize("cutout", [0, 8])
def test_no_batch_of_the_loader_waits(cutout: int) -> None:
    ids, how = torch.arange(64), replace(CIFAR10.augmentation, cutout=cutout)
    split = Split(torch.zeros(64, 3, 32, 32, dtype=torch.uint8), ids % 10, ids, 10, how, rows=ids)
    list(split.batches(16, seed=0, epoch=1))  # where each view's pixels come from is worked out once
    with Calls() as mine:
        batches = list(split.batches(16, seed=0, epoch=2))
    assert len(batches) == 4 and mine.names["aten::gather"] == 4
    assert mine.waits == 0, mine.names & Counter(dict.fromkeys(WAITS, 1))
    with Calls() as other:
        torch.tensor([1]).item()
    assert other.names["aten::lift_fresh"] == 1 and other.waits >= 2, "the counter counts"


def test_every_exact_switch_is_exact_in_a_whole_step() -> None:
    found = gate("resnet-8-16", batch_size=4)
    assert {each.switch for each in found} >= {"folded batch norm", "channels_last", "closed-form gradient"}
    for each in found:
        assert max(each.gradient, each.loss, each.buffers) <= 1e-12, each


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-18", "mobilenet-v2"])
def test_all_switches_together_are_exact_in_large_networks(name: str) -> None:
    found = gate(name, batch_size=2, only=("folded, minimal filters", "all, from a table"))
    assert len(found) == 2
    for each in found:
        assert max(each.gradient, each.loss, each.buffers) <= 1e-12, each


def test_the_gate_closes() -> None:
    """A difference of 1e-9 in some weights is seen."""
    (found,) = gate("resnet-8-16", batch_size=4, num_steps=1, only=("nothing",), disturb=1e-9)
    assert found.gradient > 1e-12
