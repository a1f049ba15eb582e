"""The plain step that ours is held against computes what ours computes."""

from __future__ import annotations

import torch
from torch import nn

from absld_search.core import models, teachers
from absld_search.core.data import Batch
from absld_search.core.losses import ClassMeans
from absld_search.core.methods.absld import ABSLD
from benchmarks.plain import PlainABSLD


def pair(name: str, seed: int) -> tuple[nn.Module, nn.Module]:
    return tuple(models.build(name, 10, 3, seed).double().train() for _ in range(2))


def batch_of(size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(size, 3, 32, 32, generator=generator, dtype=torch.float64), torch.arange(size) % 9
    return Batch(x, y, torch.arange(size), torch.zeros_like(y))


def test_loss_gradients_statistics_and_class_sums_are_ours() -> None:
    plain_student, student = pair("resnet-8-8", 0)
    plain_teacher, teacher = pair("resnet-8-4", 1)
    plain, batch = PlainABSLD(plain_student, plain_teacher, 10), batch_of(12)
    method = ABSLD(coupling="product", risk_aggregation="sum")
    method.setup(10, "cpu")
    method.tau_adv = plain.tau_adv = torch.linspace(0.5, 2, 10).double()
    method.tau_clean = plain.tau_clean = torch.linspace(3, 0.7, 10).double()
    torch.manual_seed(4)
    expected = plain.loss(batch.x, batch.y)
    expected.backward()
    torch.manual_seed(4)
    loss, signals = method.step(student, {"robust": teachers.Network(teacher)}, batch)
    loss.backward()
    assert torch.allclose(loss, expected, rtol=1e-12, atol=0)
    for mine, theirs in zip(student.parameters(), plain_student.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() <= 1e-12 * theirs.grad.norm()
    for mine, theirs in zip(student.buffers(), plain_student.buffers(), strict=True):
        assert torch.allclose(mine.double(), theirs.double(), rtol=1e-12)
    means = ClassMeans(10, "cpu")
    means.add(batch.y, signals)
    assert torch.allclose(means.sums["adv_risk"], torch.tensor(plain.adv_risk, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(means.sums["clean_risk"], torch.tensor(plain.clean_risk, dtype=torch.float64), rtol=1e-12)


def test_a_step_moves_the_weights_and_gives_the_loss() -> None:
    plain = PlainABSLD(models.build("resnet-8-4", 10, 3, 0), models.build("resnet-8-4", 10, 3, 1), 10, num_steps=2)
    batch = batch_of(8)
    before = plain.student.linear.weight.clone()
    assert 0 < plain.step(batch.x.float(), batch.y) < 5
    assert not torch.equal(plain.student.linear.weight, before)
