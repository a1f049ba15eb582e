"""The papers' numbers and the closed forms of their rules, by hand or by another solver."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from absld_search.core import attacks, metrics
from absld_search.core.methods.adversarial import trades_terms
from absld_search.core.methods.base import Epoch
from absld_search.core.methods.bat import BAT
from absld_search.core.methods.csr import spectral_gains
from absld_search.core.methods.weights import Confusion, dafa_weights, fair_ard_weights, kl_ball_weights
from tests.core.zoo import images, network, ready, stepped

KAPPA = torch.tensor([6.8, 8.2, 4.7, 3.6, 4.4, 4.6, 5.8, 6.6, 7.5, 7.3])


def test_fair_ards_clipped_weights() -> None:
    """From the release's own rule, of which the weights sum to 11.40 instead of 10."""
    found = fair_ard_weights(KAPPA, 2.0, 5 / 6, 5 / 2, renormalise=False)
    wanted = torch.tensor([0.833, 0.833, 1.304, 2.223, 1.488, 1.362, 0.857, 0.833, 0.833, 0.833]).double()
    assert torch.allclose(found, wanted, atol=6e-4)
    assert float(found.sum()) == pytest.approx(11.40, abs=5e-3)
    fair = fair_ard_weights(KAPPA, 2.0, 5 / 6, 5 / 2, renormalise=True)
    assert float(fair.mean()) == pytest.approx(1.0) and torch.allclose(fair / found, fair[0] / found[0])


def test_fair_ard_survives_a_class_that_survives_nothing() -> None:
    kappa = torch.tensor([0.0, 5.0, float("nan")])
    found = fair_ard_weights(kappa, 2.0, 5 / 6, 5 / 2, renormalise=False)
    assert found.isfinite().all() and found[0] == 2.5


@pytest.mark.parametrize("base", ["ard", "iad", "rslad", "mtard"])
def test_fair_weights_multiply_and_do_not_average(base: str) -> None:
    """(1 / B) * sum(w[y] * loss): doubling all weights doubles the loss, and one class's weight counts for it alone."""
    batch, plain = images(24, 10, torch.float64), stepped(ready(base), images(24, 10, torch.float64))[0].loss
    fair = ready(f"fair-{base}")
    fair.weights = torch.full((10,), 2.0)
    assert torch.allclose(stepped(fair, batch)[0].loss, 2 * plain, rtol=1e-12, atol=0)
    each = []
    for c in range(10):
        fair = ready(f"fair-{base}")
        fair.weights = torch.eye(10)[c]
        each.append(stepped(fair, batch)[0].loss)
    assert torch.allclose(torch.stack(each).sum(), plain, rtol=1e-9, atol=0) and each[9] == 0 < each[0]


def test_kappa_counts_the_iterates_that_are_still_right() -> None:
    """A student that is always right survives every step, one that is always wrong none."""
    for label, survived in ((0, 4.0), (1, 0.0)):
        student = network(seed=1)
        with torch.no_grad():
            student.linear.weight.zero_()
            student.linear.bias.copy_(torch.eye(10)[0])
        batch = images(12, 10)._replace(y=torch.full((12,), label))
        (_, per_sample), _ = stepped(ready("fair-rslad"), batch, student=student)
        assert (per_sample["survived"] == survived).all()


def test_nsd_of_a_published_row() -> None:
    """AutoAttack by class of FAAL's first row: mean 45.10, worst 28.8, NSD .2941 with divisor C."""
    accuracies = np.array([0.552, 0.692, 0.316, 0.288, 0.299, 0.363, 0.384, 0.488, 0.546, 0.582])
    labels = np.repeat(np.arange(10), 1000)
    correct = np.concatenate([np.arange(1000) < round(1000 * a) for a in accuracies])
    found = metrics.summary("robust", correct, labels, 10)
    assert found["robust_accuracy"] == pytest.approx(0.4510)
    assert found["worst_class_robust_accuracy"] == pytest.approx(0.288)
    assert found["robust_nsd"] == pytest.approx(0.2941, abs=5e-5)


costs = st.lists(st.floats(-12, 12), min_size=3, max_size=10)


@given(costs, st.floats(0.01, 2.0))
@settings(max_examples=25, deadline=None)
def test_faals_bisection_against_a_numerical_solver(values: list[float], radius: float) -> None:
    cost = np.array(values)
    if np.ptp(cost) < 0.1:
        return
    found = kl_ball_weights(torch.tensor(cost), torch.ones(len(cost), dtype=torch.bool), radius).numpy()
    n = len(cost)
    limit = {"type": "ineq", "fun": lambda p: radius + math.log(n) + np.log(np.maximum(p, 1e-12)).mean()}
    whole = {"type": "eq", "fun": lambda p: p.sum() - 1}
    solved = minimize(lambda p: -p @ cost / np.ptp(cost), np.full(n, 1 / n), jac=lambda p: -cost / np.ptp(cost),
                      bounds=[(1e-12, 1)] * n, constraints=[limit, whole], method="SLSQP",
                      options={"ftol": 1e-14, "maxiter": 1000})  # fmt: skip
    assert -math.log(n) - np.log(found).mean() == pytest.approx(radius, abs=1e-9), "the radius is used up"
    assert found.sum() == pytest.approx(1) and (found > 0).all()
    reached = -solved.fun * np.ptp(cost)
    assert found @ cost >= reached - 1e-6 * np.ptp(cost), "no solver finds a worse mix inside the ball"
    if solved.success:
        assert found @ cost == pytest.approx(reached, abs=1e-6 * max(1, np.ptp(cost)))


def test_faals_mix_at_its_ends() -> None:
    cost, seen = torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([True, True, True, False])
    even = kl_ball_weights(cost, seen, 0.0)
    assert torch.allclose(even, torch.tensor([1, 1, 1, 0]).double() / 3, atol=1e-7)
    assert float(kl_ball_weights(cost, seen, 8.0)[2]) > 0.99
    assert torch.allclose(kl_ball_weights(torch.ones(4), seen, 1.0), even)
    assert torch.allclose(kl_ball_weights(1e-9 * cost, seen, 0.5), kl_ball_weights(1e9 * cost, seen, 0.5))


def frl_double_loop(clean: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """The release's loop over pairs: each multiplier adds to its own class and takes evenly from all."""
    classes = len(clean)
    weights = np.full((2, classes), 1 / classes)
    for row, multipliers in enumerate((clean, boundary)):
        for i in range(classes):
            for j in range(classes):
                weights[row, j] += multipliers[i] * ((1 if i == j else 0) - 1 / classes)
    return weights


@given(st.lists(st.floats(0, 0.2), min_size=20, max_size=20))
@settings(max_examples=50, deadline=None)
def test_frls_closed_form(values: list[float]) -> None:
    method = ready("frl")
    method.multipliers = torch.cat([torch.tensor(values).double(), torch.zeros(10).double()]).view(3, 10)
    wanted = frl_double_loop(np.array(values[:10]), np.array(values[10:]))
    assert torch.allclose(method.class_weights(), torch.tensor(wanted), atol=1e-12)
    assert method.class_weights().sum(1).tolist() == pytest.approx([1, 1])


def test_frls_multipliers_by_hand() -> None:
    """Two classes; clean errors .1 and .5, robust .3 and .9: gaps to the mean -.2 and .2, boundary -.1 and .1."""
    method = ready("frl", num_classes=2, slack=0.05)
    errors = {"clean_error": torch.tensor([0.1, 0.5]).double(), "robust_error": torch.tensor([0.3, 0.9]).double()}
    method.start_epoch(Epoch(1, 40, 1.0), errors)
    clean, boundary, margin = method.multipliers.tolist()
    assert clean == pytest.approx([0, 0.05 * 0.15]) and boundary == pytest.approx([0, 2 * 0.05 * 0.05])
    assert margin == pytest.approx([0.2 * -0.15, 0.2 * 0.05])
    eps, step_size = (torch.as_tensor(value) for value in method.radius(torch.arange(2)))
    assert eps.tolist() == pytest.approx([0.1 * 0.98, 0.1 * math.exp(0.02)])  # the first is clipped
    assert step_size.tolist() == pytest.approx([0.1 * math.exp(0.02) / 4] * 2)
    for _ in range(200):
        method.start_epoch(Epoch(1, 40, 1.0), errors)
    assert float(method.multipliers[0].sum()) == pytest.approx(0.5), "projected onto the limit"


def test_wat_weighs_by_the_exponential_of_all_costs() -> None:
    method = ready("wat", num_classes=2, weight_lr=1.0)
    cost = {"cost": torch.tensor([1.0, 3.0]).double()}
    method.start_epoch(Epoch(1, 9, 1.0), cost)
    assert torch.allclose(method.class_weights(), torch.full((3,), 2 / 3).double()), "nothing was trained yet"
    for number in (2, 3):
        method.start_epoch(Epoch(number, 9, 1.0), cost)
    assert torch.allclose(method.class_weights(), 2 * torch.tensor([2.0, 6.0, 4.0]).double().softmax(0))
    method.costs = method.costs * 1e6
    assert method.class_weights().isfinite().all() and float(method.class_weights()[1]) == pytest.approx(2)


def test_cfols_scores_by_hand() -> None:
    """A student that calls everything class 0: one error for each other sample, over its class's probability."""
    student = network(num_classes=4, seed=1)
    with torch.no_grad():
        student.linear.weight.zero_()
        student.linear.bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    method = ready("cfol", num_classes=4, sampling_lr=0.1)
    batch = images(6, 4)._replace(y=torch.tensor([0, 1, 1, 1, 2, 0]))
    stepped(method, batch, 4, student=student)
    assert torch.allclose(method.scores, torch.tensor([0, 3, 1, 0]).double() * 0.1 / 0.25)
    wanted = 0.5 / 4 + 0.5 * method.scores.softmax(0)
    assert torch.allclose(method.class_sampling(), wanted)


def dafa_by_loop(p: np.ndarray, strength: float) -> np.ndarray:
    weights = np.ones(len(p))
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j and p[i, i] < p[j, j]:
                weights[i] += strength * p[i, j] * p[j, j]
            elif i != j:
                weights[i] -= strength * p[j, i] * p[i, i]
    return weights


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_dafas_pairs_against_the_loop(seed: int, strength: float) -> None:
    p = (3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)).double() + 3 * torch.eye(6)).softmax(1)
    found = dafa_weights(p, strength)
    assert torch.allclose(found, torch.tensor(dafa_by_loop(p.numpy(), strength)).clamp_min(0), atol=1e-12)
    assert float(dafa_weights(p, 0.3).sum()) == pytest.approx(6)


def test_dafa_scales_radius_step_and_clean_loss_and_not_the_robust_one() -> None:
    method, batch = ready("dafa"), images(24, 10, torch.float64)
    method.weights = torch.linspace(0.5, 1.5, 10, dtype=torch.float64)
    eps, step_size = (torch.as_tensor(value) for value in method.radius(torch.arange(10)))
    assert torch.allclose(eps, method.weights * 0.1) and torch.allclose(step_size, method.weights * 0.05)
    (loss, _), _ = stepped(method, batch)
    torch.manual_seed(3)
    terms = trades_terms(method, network(seed=1).double().train(), batch)
    wanted = (method.weights[batch.y] * terms.natural).mean() + 6 * terms.robust.mean()
    assert torch.allclose(loss, wanted, rtol=1e-12, atol=0)


def test_dafa_collects_in_the_last_epoch_of_its_warm_up() -> None:
    for number, collects in ((69, False), (70, True), (71, False)):
        assert (ready("dafa", epoch=Epoch(number, 110, 1.0)).confusion is not None) == collects
    confusion = Confusion(3, "cpu")
    confusion.add(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]))
    assert torch.allclose(confusion.mean()[:2], torch.full((2, 3), 1 / 3).double())
    assert confusion.mean()[2].isnan().all() and dafa_weights(confusion.mean(), 1.0).isfinite().all()


def test_csrs_gains() -> None:
    """A matrix of rank one off its diagonal is known: u, v are its rows and columns."""
    confusion = torch.tensor([[0.9, 0.0, 0.0], [0.1, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    found = spectral_gains(confusion)
    assert found[1, 0] == pytest.approx(2.01) and found.min() == pytest.approx(0.01)
    assert torch.equal(spectral_gains(torch.eye(3)), torch.ones(3, 3).double())
    rates = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)).double()
    left, _, right = np.linalg.svd((rates - torch.diag(rates.diagonal())).numpy())
    outer = np.abs(np.outer(left[:, 0], right[0]))
    wanted = 0.01 + 2.0 * (outer - outer.min()) / np.ptp(outer)
    assert torch.allclose(spectral_gains(rates), torch.tensor(wanted))


class Line(torch.nn.Module):
    """Two classes on a line: class 1 where the mean pixel exceeds a half."""

    def forward(self, x: Tensor) -> Tensor:
        score = 10 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], dim=1)


def test_bat_stops_where_the_boundary_is_crossed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brightness .43, steps of .03 up: right at .43, .46, .49, wrong at .52; one step more ends at .55."""
    method = BAT(eps=0.5, step_size=0.03, num_steps=8)
    method.setup(2, "cpu")
    x = torch.stack([torch.full((1, 4, 4), level) for level in (0.43, 0.6, 0.05)])
    batch = images(3, 2)._replace(x=x, y=torch.zeros(3, dtype=torch.int64))
    monkeypatch.setattr(attacks, "start_noise", lambda x, *_: torch.full_like(x, 1e-4))  # up
    right, wrong = (found.flatten(1).mean(1).tolist() for found in method.boundary(Line(), batch))
    assert right[0] == pytest.approx(0.49, abs=2e-3) and wrong[0] == pytest.approx(0.55, abs=2e-3)
    assert right[1] == pytest.approx(0.6, abs=2e-3), "wrong from the start: its start is its clean image"
    assert wrong[1] == pytest.approx(0.63, abs=2e-3)
    assert right[2] == wrong[2] == pytest.approx(0.05 + 8 * 0.03, abs=2e-3), "never flips: both are the end"


def test_ham_trains_on_what_fails_early_and_on_no_other() -> None:
    method = ready("ham", num_steps=8, early_steps=2, extra_share=0.0)
    logits = torch.tensor([[2.0, 0], [0, 2.0], [0, 1.0], [3.0, 0], [1.0, 0]])
    assert method._hard(logits, torch.zeros(5, dtype=torch.int64)).tolist() == [1, 2]
    assert method._hard(logits, torch.ones(5, dtype=torch.int64)).tolist() == [0, 3, 4]
    right = torch.tensor([[2.0, 0], [3.0, 0], [1.0, 0]])
    assert method._hard(right, torch.zeros(3, dtype=torch.int64)).tolist() == [0, 2], "two at least, the least safe"
    method.extra_share = 0.4
    assert method._hard(logits, torch.zeros(5, dtype=torch.int64)).tolist() == [0, 1, 2, 4]


def test_mtards_balance_by_hand() -> None:
    method = ready("mtard", balance_lr=0.5, epoch=Epoch(1, 10, 1.0))
    method._balance(torch.tensor([2.0, 4.0]))
    assert float(method.clean_weight) == pytest.approx(0.5), "both losses stand where they started"
    method._balance(torch.tensor([1.0, 3.0]))  # .5 and .75 of the start: the clean share is .6
    assert float(method.clean_weight) == pytest.approx(0.5 + 0.5 * 0.1)


def test_cfas_scales_by_hand() -> None:
    method = ready("cfa", num_classes=2, margin_base=0.3, regularisation_base=0.5)
    method.end_epoch({"adv_correct": torch.tensor([0.2, 0.8]).double()}, Epoch(1, 10, 1.0))
    eps, _ = method.radius(torch.arange(2))
    assert torch.as_tensor(eps).tolist() == pytest.approx([0.05, 0.11])
    assert method.regularisations.tolist() == pytest.approx([0.7, 1.3])
    released = ready("cfa", num_classes=2, released=True)
    released.end_epoch({"adv_correct": torch.tensor([0.2, 0.8]).double()}, Epoch(9, 200, 1.0))
    assert released.margins.tolist() == [1, 1]


@pytest.mark.parametrize("operation", ["cutout", "shift"])
def test_fairats_augmentations(operation: str) -> None:
    method, x = ready("fairat", operation=operation, strength=0.25), torch.ones(50, 1, 8, 8)
    torch.manual_seed(0)
    found = method.augmented(x)
    assert found.shape == x.shape and set(found.unique().tolist()) == {0.0, 1.0} and (x == 1).all()
    holes = (found == 0).flatten(1).sum(1)
    assert (holes == 4).all() if operation == "cutout" else (holes <= 8 * 8 - 6 * 6).all() and holes.max() > 8
