"""A method with its knob at zero is another method: to the bit, or to 1e-12 in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from absld_search.core import teachers
from absld_search.core.losses import cross_entropy, kl_div, soft_labels
from absld_search.core.methods import METHODS
from absld_search.core.methods.adversarial import trades_terms
from absld_search.core.methods.base import Epoch
from absld_search.core.trainer import Options
from tests.core.zoo import LATE, gradients, images, network, ready, same, stepped, trainer

EQUAL_TO_THE_BIT = [
    ("absld", {"temperature_lr": 0.0}, "rslad"),
    ("absld", {"norm_matched": True, "temperature_lr": 0.0}, "rslad"),
    ("fair-rslad", {"reweight_exponent": 0.0}, "rslad"),
    ("fair-ard", {"reweight_exponent": 0.0}, "ard"),
    ("fair-iad", {"reweight_exponent": 0.0}, "iad"),
    ("fair-mtard", {"reweight_exponent": 0.0}, "mtard"),
    ("dafa", {"transfer": 0.0}, "trades"),
    ("ham", {"warm_up": 1.0}, "sat"),
]


@pytest.mark.parametrize(("name", "knobs", "other"), EQUAL_TO_THE_BIT, ids=str)
def test_equal_to_the_bit(name: str, knobs: dict[str, object], other: str) -> None:
    """Two whole epochs, of which the second would show any state that moved."""
    first, second = trainer(name, **knobs), trainer(other)
    for one in (first, second):
        one.run(lambda end: None)
    assert same(first, second)


@pytest.mark.parametrize(("name", "knobs", "other"), EQUAL_TO_THE_BIT, ids=str)
def test_and_the_knob_matters(name: str, knobs: dict[str, object], other: str) -> None:
    other_value = {"temperature_lr": 0.1, "reweight_exponent": 2.0, "transfer": 1.0, "warm_up": 0.5}
    moved = {knob: other_value[knob] for knob in knobs if knob in other_value}
    first, second = trainer(name, **{**knobs, **moved, **({"warm_up": 0.5} if name == "dafa" else {})}), trainer(other)
    for one in (first, second):
        one.run(lambda end: None)
    assert not same(first, second)


def doubled(name: str, epoch: Epoch = LATE, **knobs: object) -> tuple[Tensor, list[Tensor]]:
    """(loss, gradients) of one step in double precision at fixed weights and noise."""
    (loss, _), student = stepped(ready(name, epoch=epoch, **knobs), images(24, 10, torch.float64))
    return loss.detach(), gradients(student)


def close(found: tuple[Tensor, list[Tensor]], wanted: tuple[Tensor, list[Tensor]], factor: float = 1.0) -> bool:
    """Equal to 1e-12 relative, loss and gradient, up to a factor."""
    pairs = [(found[0], wanted[0]), *zip(found[1], wanted[1], strict=True)]
    return all((a - factor * b).norm() <= 1e-12 * (factor * b).norm() + 1e-300 for a, b in pairs)


def test_cfa_with_class_scales_of_one_is_its_base() -> None:
    """Its TRADES form is a weighted mean: TRADES over 1 + beta."""
    assert close(doubled("cfa"), doubled("trades"), 1 / 7)
    assert close(doubled("cfa", base="sat", attack_start="uniform"), doubled("sat"))


def test_frl_without_rates_is_its_weighted_trades() -> None:
    still = {"reweight_lr": 0.0, "remargin_lr": 0.0}
    assert close(doubled("frl", remargin=False, **still), doubled("trades", kl_weight=1.5))


def test_frl_with_multipliers_is_weighted_by_hand() -> None:
    method, batch = ready("frl", remargin=False), images(24, 10, torch.float64)
    method.multipliers[0, 2], method.multipliers[1, 5] = 0.3, 0.4
    (loss, _), _ = stepped(method, batch)
    plain = ready("trades")
    torch.manual_seed(3)
    terms = trades_terms(plain, network(seed=1).double().train(), batch)
    w0 = torch.full((10,), 0.1, dtype=torch.float64) - 0.03
    w1 = torch.full((10,), 0.1, dtype=torch.float64) - 0.04
    w0[2] += 0.3
    w1[5] += 0.4
    w0, w1 = w0[batch.y], w1[batch.y]
    wanted = (w0 * terms.natural).sum() / w0.sum() + 1.5 * (w1 * terms.robust).sum() / w1.sum()
    assert torch.allclose(loss, wanted, rtol=1e-12, atol=0)


def test_wat_without_rate_is_trades_times_2c_over_c_plus_1() -> None:
    assert close(doubled("wat", weight_lr=0.0), doubled("trades"), 20 / 11)


def test_mtard_with_equal_teachers_and_fixed_weights_is_the_closed_form() -> None:
    method, batch = ready("mtard", balance_lr=0.0), images(24, 10, torch.float64)
    one = teachers.Network(network(seed=7).double())
    student, again = (network(seed=1).double().train() for _ in range(2))
    torch.manual_seed(3)
    loss, _ = method.step(student, {"robust": one, "clean": one}, batch)
    torch.manual_seed(3)
    x_adv = method.attack(again, batch, lambda logits, x: cross_entropy(logits, batch.y))
    pairs = [(x, soft_labels(one(x))) for x in (x_adv, batch.x)]
    wanted = sum(0.5 * kl_div(labels, again(x)).mean() / 10 for x, labels in pairs)
    assert torch.allclose(loss, torch.as_tensor(wanted), rtol=1e-12, atol=0)


def test_faal_at_radius_zero_is_its_base() -> None:
    batch = images(27, 10, torch.float64)  # nine classes of equal size
    for base, start in (("sat", "uniform"), ("trades", "gaussian")):
        faal = stepped(ready("faal", base=base, attack_start=start, radius_kl=0.0), batch)
        plain = stepped(ready(base), batch)
        assert torch.allclose(faal[0].loss, plain[0].loss, rtol=1e-6, atol=0)


def test_csr_without_its_term_is_trades() -> None:
    assert close(doubled("csr", spectral_weight=0.0), doubled("trades"))


def test_cfol_without_rate_draws_evenly() -> None:
    method = ready("cfol", sampling_lr=0.0)
    stepped(method, images(24, 10))
    assert torch.allclose(method.class_sampling(), torch.full((10,), 0.1).double())


def test_fairat_without_hard_images_is_sat() -> None:
    assert close(doubled("fairat", hard_share=0.0, mode="append"), doubled("sat"))


def test_iad_before_introspection_is_ard_summed_over_classes() -> None:
    """Batch norm apart: one more clean forward moves statistics, not this step's loss."""
    early = Epoch(1, 10, 1.0)
    iad, ard = doubled("iad", early, temperature=30.0), doubled("ard", early)
    assert close(iad, ard, 10.0)


def test_adaiad_before_introspection_is_softened_adaad() -> None:
    early = Epoch(1, 10, 1.0)
    found = doubled("adaiad", early, temperature=1.0, kl_reduction="mean")
    assert close(found, doubled("adaad", early))


def test_released_training_words_are_not_the_default() -> None:
    for name, method in METHODS.items():
        assert not {"nesterov", "drop_once"} & method().training_defaults().keys(), name
    assert Options().averaging == "none"
