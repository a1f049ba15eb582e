"""What every method must do, and what ABSLD's rule must obey."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absld_search.core import data, models, teachers
from absld_search.core.methods import METHODS
from absld_search.core.methods.absld import ABSLD, COUPLINGS
from absld_search.core.methods.base import Epoch, checked, knobs
from absld_search.core.trainer import NonFinite, Schedule, Trainer
from absld_search.words import UsageError
from absld_search.workloads import DIGITS

SCHEDULE = Schedule(2, 100, 0.5, 0.9, 2e-4, (0.5,), 0.1)
END = Epoch(1, 10, 1.0)
risks = st.lists(st.floats(0.01, 10), min_size=10, max_size=10)


def splits() -> tuple[data.Split, data.Split]:
    return data.load("digits", DIGITS.split, "cpu")


def small() -> data.Split:
    train, _ = splits()
    rows = slice(0, 200)
    return data.Split(train.images[rows], train.labels[rows], train.ids[rows], 10)


def teacher(train: data.Split) -> teachers.Network:
    return teachers.Tabulated(models.build("cnn-12", 10, 1, seed=5), train)


def trainer(name: str, seed: int = 0, **knobs_: object) -> Trainer:
    train = small()
    method = METHODS[name](eps=0.1, step_size=0.05, num_steps=2, **knobs_)
    return Trainer(models.build("cnn-8", 10, 1, seed), method, {"robust": teacher(train)}, train, SCHEDULE, seed)


def weights(trained: Trainer) -> list[Tensor]:
    return list(trained.student.state_dict().values())


def same(first: Trainer, second: Trainer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_moves_the_student_and_reports_classes(self, name: str) -> None:
        trained = trainer(name)
        before = [value.clone() for value in weights(trained)]
        end = trained.run_epoch()
        assert any(not torch.equal(a, b) for a, b in zip(before, weights(trained), strict=True))
        assert 0 <= end.metrics["train/robust_accuracy"] <= 1
        assert "train/robust_accuracy/class_09" in end.metrics

    def test_is_a_function_of_the_seed(self, name: str) -> None:
        first, second, other = trainer(name), trainer(name), trainer(name, seed=1)
        for one in (first, second, other):
            one.run(lambda end: None)
        assert same(first, second) and not same(first, other)

    def test_one_epoch_restored_and_one_more_equal_two(self, name: str) -> None:
        whole, half, rest = trainer(name), trainer(name), trainer(name)
        whole.run(lambda end: None)
        half.run_epoch()
        torch.randn(7)  # whatever else happened in the process must not matter
        rest.load_state_dict(half.state_dict())
        rest.run(lambda end: None)
        assert same(whole, rest)
        for key, value in whole.method.state_dict().items():
            assert torch.equal(value, rest.method.state_dict()[key])

    def test_leaves_the_batch_as_it_was(self, name: str) -> None:
        trained, train = trainer(name), small()
        batch = train.at(torch.arange(50))
        before = [tensor.clone() for tensor in batch]
        trained.student.train()
        loss, per_sample = trained.method.step(trained.student, trained.teachers, batch)
        assert all(torch.equal(a, b) for a, b in zip(before, batch, strict=True))
        assert loss.ndim == 0 and loss.requires_grad
        assert all(value.shape == (50,) and not value.requires_grad for value in per_sample.values())

    def test_attack_moves_no_batch_norm_statistics(self, name: str) -> None:
        """Two training forwards at most: an attack in train mode would add `num_steps` more."""
        trained = trainer(name)
        trained.student.train()
        trained.method.step(trained.student, trained.teachers, small().at(torch.arange(20)))
        counts = [m.num_batches_tracked.item() for m in trained.student.modules() if isinstance(m, nn.BatchNorm2d)]
        assert set(counts) <= {1, 2}

    def test_every_knob_is_checked(self, name: str) -> None:
        for knob, field in knobs(METHODS[name]).items():
            assert checked(METHODS[name], knob, str(field.default)) == field.default
            if field.metadata["low"] is not None:
                with pytest.raises(UsageError, match=knob):
                    checked(METHODS[name], knob, field.metadata["low"] - 1)


def test_absld_without_rate_equals_rslad_to_the_bit() -> None:
    absld, rslad = trainer("absld", temperature_lr=0.0), trainer("rslad")
    for one in (absld, rslad):
        one.run(lambda end: None)
    assert same(absld, rslad)


def test_absld_with_a_rate_does_not() -> None:
    absld, rslad = trainer("absld"), trainer("rslad")
    for one in (absld, rslad):
        one.run(lambda end: None)
    assert not same(absld, rslad)


def test_mixed_at_strength_zero_equals_dual_to_the_bit() -> None:
    dual, mixed = trainer("absld"), trainer("absld", coupling="mixed")
    half = trainer("absld", coupling="mixed", coupling_strength=0.5)
    for one in (dual, mixed, half):
        one.run(lambda end: None)
    assert same(dual, mixed) and not same(dual, half)


def ready(coupling: str = "dual", **knobs_: float) -> ABSLD:
    method = ABSLD(coupling=coupling, **knobs_)  # type: ignore[arg-type]
    method.setup(10, "cpu")
    return method


def test_targets_of_each_coupling() -> None:
    z, y = 5 * torch.randn(30, 10), torch.arange(30) % 10
    adv, clean = torch.linspace(0.5, 3, 10), torch.linspace(4, 0.6, 10)
    expected = {
        "dual": (adv, clean), "mixed": (adv, clean), "adv_only": (adv, clean), "clean_only": (adv, clean),
        "shared": (adv, adv), "product": (adv * clean, adv * clean),
    }  # fmt: skip
    assert set(expected) == set(COUPLINGS)
    for coupling, (tau_adv, tau_clean) in expected.items():
        method = ready(coupling)
        method.tau_adv, method.tau_clean = adv, clean
        targets = method.targets(z, y)
        assert torch.allclose(targets[0], (z / tau_adv[y][:, None]).softmax(1), atol=1e-7), coupling
        assert torch.allclose(targets[1], (z / tau_clean[y][:, None]).softmax(1), atol=1e-7), coupling
    dual = ready("dual")
    dual.tau_adv, dual.tau_clean = adv, clean
    assert not torch.allclose(dual.targets(z, y)[0], (z / (adv * clean)[y][:, None]).softmax(1), atol=1e-3)


def test_who_moves_in_each_coupling() -> None:
    means = {"adv_risk": torch.linspace(0.1, 2, 10).double(), "clean_risk": torch.linspace(2, 0.1, 10).double()}
    moving = {"dual": (1, 1), "mixed": (1, 1), "product": (1, 1), "adv_only": (1, 0), "clean_only": (0, 1),
              "shared": (1, 0)}  # fmt: skip
    for coupling, moved in moving.items():
        method = ready(coupling)
        method.end_epoch(means, END)
        found = tuple(int(not torch.equal(tau, torch.ones(10))) for tau in (method.tau_adv, method.tau_clean))
        assert found == moved, coupling


@given(risks, risks)
def test_full_mixing_drives_both_sets_alike(adv: list[float], clean: list[float]) -> None:
    method = ready("mixed", coupling_strength=1.0)
    method.end_epoch({"adv_risk": torch.tensor(adv).double(), "clean_risk": torch.tensor(clean).double()}, END)
    assert torch.allclose(method.tau_adv, method.tau_clean)


@given(risks, st.floats(0, 2), st.permutations(range(10)))
@settings(max_examples=200)
def test_the_rule(adv: list[float], rate: float, order: list[int]) -> None:
    """Bounded; harder is sharper; by exactly the rate at the most; whatever the classes are called."""
    risk = torch.tensor(adv, dtype=torch.float64)
    method = ready(temperature_lr=rate, temperature_min=0.01, temperature_max=50.0)
    method.end_epoch({"adv_risk": risk, "clean_risk": risk}, END)
    moved = method.tau_adv - 1
    assert method.tau_adv.isfinite().all()
    assert ((method.tau_adv >= 0.0099) & (method.tau_adv <= 50.01)).all()
    assert moved.abs().max() <= rate + 1e-6
    assert (moved[risk.argmax()] <= 1e-6) and (moved[risk.argmin()] >= -1e-6)
    shuffled = ready(temperature_lr=rate, temperature_min=0.01, temperature_max=50.0)
    shuffled.end_epoch({"adv_risk": risk[order], "clean_risk": risk[order]}, END)
    assert torch.allclose(shuffled.tau_adv, method.tau_adv[order], atol=1e-5)


def test_released_numbers_of_one_update() -> None:
    """gap / max|gap| by hand: risks 1, 2, 6 have gaps -2, -1, 3."""
    method = ABSLD()
    method.setup(3, "cpu")
    risk = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    method.end_epoch({"adv_risk": risk, "clean_risk": risk}, Epoch(215, 300, 0.1))
    assert torch.allclose(method.tau_adv, torch.tensor([1 + 0.02 / 3, 1 + 0.01 / 3, 0.99]), atol=1e-6)


@given(st.floats(0.01, 100))
def test_equal_risks_move_nothing(level: float) -> None:
    method = ready()
    rounding = level * (1 + 1e-8 * torch.arange(10).double())
    method.end_epoch({"adv_risk": rounding, "clean_risk": rounding}, END)
    assert torch.equal(method.tau_adv, torch.ones(10)) and torch.equal(method.tau_clean, torch.ones(10))


def test_an_absent_class_keeps_its_temperature() -> None:
    risk = torch.linspace(0.5, 2, 10).double()
    risk[4] = float("nan")
    method = ready()
    method.end_epoch({"adv_risk": risk, "clean_risk": risk}, END)
    assert method.tau_adv[4] == 1 and method.tau_adv.isfinite().all()
    assert method.tau_adv[9] < 1 < method.tau_adv[0]
    assert (method.tau_adv - 1).abs().max() == pytest.approx(0.1)


def test_no_class_at_all_moves_nothing() -> None:
    nothing = torch.full((10,), float("nan")).double()
    method = ready()
    method.end_epoch({"adv_risk": nothing, "clean_risk": nothing}, END)
    assert torch.equal(method.tau_adv, torch.ones(10))


def test_temperatures_stay_inside_their_bounds() -> None:
    method, risk = ready(temperature_lr=3.0), torch.linspace(0.5, 2, 10).double()
    for number in range(1, 6):
        method.end_epoch({"adv_risk": risk, "clean_risk": risk}, Epoch(number, 5, 1.0))
    assert method.tau_adv.min() == 0.5 and method.tau_adv.max() == 5.0
    with pytest.raises(UsageError, match="initial_temperature_clean is 9"):
        ABSLD(initial_temperature_clean=9)


def test_learning_rate_falls_where_the_papers_drop_it() -> None:
    schedule = Schedule(20, 200, 0.1, 0.9, 0.0, (0.5, 0.75, 0.9), 0.1)
    train = small()
    method = METHODS["sat"](eps=0.0, step_size=0.1, num_steps=1)
    trained = Trainer(models.build("cnn-8", 10, 1, 0), method, {}, train, schedule, 0)
    rates: dict[int, float] = {}
    trained.run(lambda end: rates.__setitem__(end.number, end.metrics["learning_rate"]))
    at_four = [rates[epoch] for epoch in (10, 11, 16, 20)]
    assert at_four == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def test_nan_ends_the_training_with_a_reason() -> None:
    trained = trainer("sat")
    with torch.no_grad():
        next(trained.student.parameters()).fill_(float("nan"))
    with pytest.raises(NonFinite, match="nonfinite:loss@1"):
        trained.run_epoch()
