"""Frozen batch norm inside convolutions: the same function, whatever the network, and nobody notices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from absld_search.core import folding, models, speed
from absld_search.core.attacks import frozen_batch_norm, input_gradient
from absld_search.core.config import TrialConfig
from absld_search.core.losses import CrossEntropy, Divergence, soft_labels
from absld_search.core.methods import METHODS
from absld_search.core.speed import Speed
from absld_search.core.trainer import Options
from absld_search.words import UsageError
from benchmarks.train_step import settle
from tests.core.zoo import equal, images, network, ready, stepped, trainer

# How many batch norms there are, and how many of them a convolution feeds and nobody else reads.
FOLDABLE = {
    "cnn-8": (3, 3), "resnet-8-4": (9, 9), "resnet-18": (20, 20), "preact-resnet-18": (17, 8),
    "mobilenet-v2": (57, 57), "wrn-10-1": (9, 3), "wrn-10-1-swish": (7, 3),
}  # fmt: skip


def trained(name: str) -> nn.Module:
    """In double precision, with statistics that are not those of the start."""
    model = models.build(name, 10, 3, 0).double()
    settle(model)
    return model.train()


def gradient_at(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    return input_gradient(model, x.clone().requires_grad_(True), CrossEntropy(torch.arange(len(x)) % 10))


@pytest.mark.parametrize("name", FOLDABLE)
def test_logits_and_gradients_are_those_of_the_network_itself(name: str) -> None:
    model, size = trained(name), 8 if name == "cnn-8" else 16
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert (len(norms), len(folding.pairs(model))) == FOLDABLE[name]
    model.eval()
    gradient, logits = gradient_at(model, x)
    model.train()
    with frozen_batch_norm(model):
        assert model._compiled_call_impl is not None, "the copy is called"
        folded_gradient, folded_logits = gradient_at(model, x)
    assert (folded_logits - logits).norm() <= 1e-12 * logits.norm()
    assert (folded_gradient - gradient).norm() <= 1e-12 * gradient.norm()
    assert model.training and all(p.grad is None for p in model.parameters())


def test_the_copy_follows_weights_statistics_type_and_form() -> None:
    model, x = trained("resnet-8-4"), torch.rand(2, 3, 16, 16, dtype=torch.float64)

    def frozen(x: Tensor) -> Tensor:
        with frozen_batch_norm(model):
            return model(x).detach()

    def itself(x: Tensor) -> Tensor:
        return copy.deepcopy(model).eval()(x).detach()

    assert torch.allclose(frozen(x), itself(x))
    with torch.no_grad():
        model.conv1.weight.mul_(1.5)
        model.layer1[0].bn2.running_mean.add_(0.3)
        model.linear.bias.add_(1)
    assert torch.allclose(frozen(x), itself(x))
    model.load_state_dict(trained("resnet-8-4").state_dict())
    assert torch.allclose(frozen(x), itself(x))
    model.float()
    assert frozen(x.float()).dtype == torch.float32 and torch.allclose(frozen(x.float()), itself(x.float()), atol=1e-5)
    model.linear = nn.Sequential(model.linear, nn.BatchNorm1d(10))
    assert torch.allclose(frozen(x.float()), itself(x.float()), atol=1e-5)


class Odd(nn.Module):
    """A forward that looks at its values can't be followed; a convolution that is used twice can't be folded."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.looks = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), looks

    def forward(self, x: Tensor) -> Tensor:
        if self.looks and x.sum() < 0:
            return x.mean((2, 3))
        return self.norm(self.conv(self.conv(x))).mean((2, 3))


@pytest.mark.parametrize("model", [Odd(True), Odd(False), nn.Sequential(nn.BatchNorm2d(3)), nn.Identity()], ids=str)
def test_what_cannot_be_folded_runs_as_it_is(model: nn.Module) -> None:
    x = torch.rand(4, 3, 8, 8)
    wanted = copy.deepcopy(model).eval()(x)
    with frozen_batch_norm(model):
        assert torch.equal(model(x), wanted)


def test_a_convolutions_own_bias_is_folded_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)).double()
    settle(model)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with frozen_batch_norm(model):
        found = model(x)
    assert model._compiled_call_impl is None and len(folding.pairs(model)) == 1
    assert torch.allclose(found, model.eval()(x), rtol=1e-12)


def test_copies_and_checkpoints_know_nothing_of_it() -> None:
    model = network()
    names = list(model.state_dict())
    speed.choose(model, Speed(fold=False))
    with frozen_batch_norm(model):
        model(torch.rand(2, 1, 8, 8))
    speed.choose(model, Speed())
    with frozen_batch_norm(model), frozen_batch_norm(model):
        inside = copy.deepcopy(model)
        model(torch.rand(2, 1, 8, 8))
    assert list(model.state_dict()) == list(inside.state_dict()) == names
    assert inside._compiled_call_impl is None and speed.of(inside) == Speed()


def test_an_attack_in_train_mode_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("folded")

    monkeypatch.setattr(folding, "folded", refuse)
    stepped(ready("sat", attack_mode="train"), images(8, 10))
    with pytest.raises(AssertionError, match="folded"):
        stepped(ready("sat"), images(8, 10))


@pytest.mark.parametrize("objective", ["divergence", "cross_entropy"])
def test_known_gradients_at_the_logits_are_autograds(objective: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(20, 10, generator=generator).double()).requires_grad_()
    labels = soft_labels(torch.randn(20, 10, generator=generator).double())
    found = Divergence(labels) if objective == "divergence" else CrossEntropy(torch.arange(20) % 10)
    (wanted,) = torch.autograd.grad(found(logits, logits).sum(), logits)
    assert torch.allclose(found.pull(logits.detach()), wanted, rtol=1e-12, atol=1e-15)
    assert found.pull(logits.detach().bfloat16()).dtype in (torch.float32, torch.float64), (
        "never rounded to three digits"
    )


@pytest.mark.parametrize("name", METHODS)
def test_switches_change_rounding_and_nothing_else(name: str) -> None:
    """A whole step of every method with all of the exact switches and with none, in double precision."""
    none = Speed(**dict.fromkeys(speed.EXACT, False))
    losses = []
    for how in (Speed(), none):
        student = network(seed=1).double()
        speed.choose(student, how)
        (loss, _), student = stepped(ready(name), images(24, 10, torch.float64), student=student)
        losses.append(torch.cat([loss.detach()[None], *[p.grad.flatten() for p in student.parameters()]]))
    assert (losses[0] - losses[1]).norm() <= 1e-10 * losses[1].norm()


def test_bf16_trains_resumes_and_is_another_training() -> None:
    half = Options(precision="bf16")
    plain, first, again, rest = (trainer("absld", options=each) for each in (None, half, half, half))
    for one in (plain, first):
        one.run(lambda end: None)
    again.run_epoch()
    rest.load_state_dict(again.state_dict())
    rest.run(lambda end: None)
    assert equal(first.state_dict(), rest.state_dict())
    assert not equal(dict(plain.student.state_dict()), dict(first.student.state_dict()))
    assert all(value.dtype != torch.bfloat16 for value in first.student.state_dict().values())


def test_precision_is_part_of_the_identity_and_refused_where_it_is_slower() -> None:
    words = {"method": "sat"}
    fp32, bf16 = (TrialConfig.from_words({**words, "precision": p}, "digits") for p in ("fp32", "bf16"))
    assert fp32.hash == TrialConfig.from_words(words, "digits").hash != bf16.hash
    with pytest.raises(UsageError, match="precision.*'bf16'"):
        TrialConfig.from_words({**words, "precision": "bf61"}, "digits")
    with pytest.raises(UsageError, match="precision=bf16: mobilenet-v2"):
        TrialConfig.from_words({**words, "precision": "bf16"}, "cifar10-mobilenet")
    assert (
        TrialConfig.from_words({**words, "precision": "bf16"}, "cifar10-mobilenet", device="cuda").options.precision
        == "bf16"
    )


class Forked(nn.Module):
    """Two orders of the same modules, told apart by a plain attribute."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        one, two = (self.a, self.b) if self.first == "a" else (self.b, self.a)
        return self.norm(two(one(x)))


def test_a_structure_is_followed_once_and_a_plain_attribute_makes_another() -> None:
    assert folding.pairs(Forked("a")) == [("b", "norm")] and folding.pairs(Forked("b")) == [("a", "norm")]
    assert folding.pairs(Forked("a")) is folding.pairs(Forked("a")) and folding.pairs(Forked("a")) is not folding.pairs(
        Forked("b")
    )


def test_graphs_are_for_a_gpu_and_no_part_of_the_identity_where_they_are_off() -> None:
    plain = TrialConfig.from_words({}, "digits")
    assert TrialConfig.from_words({"graphs": False}, "digits").hash == plain.hash == "08e7d9b2094cc597"
    with pytest.raises(UsageError, match="graphs=True: CUDA graphs need --device cuda"):
        TrialConfig.from_words({"graphs": True}, "digits")
    config = TrialConfig.from_words({"graphs": True}, "digits", device="cuda")
    assert config.hash != plain.hash and TrialConfig.from_dict(config.to_dict()) == config
    asked = trainer("absld", options=config.options)
    assert asked.speed.graphs and not trainer("absld").speed.graphs
