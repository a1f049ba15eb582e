"""ABSLD: what its rule must obey, and what each of its factors does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from absld_search.core.losses import kl_div, soft_labels
from absld_search.core.methods.absld import ABSLD, COUPLINGS
from absld_search.core.methods.base import Epoch
from absld_search.core.methods.distillation import matched_pull
from absld_search.core.methods.label_sources import SelfTeacher, smoothed_logits
from absld_search.core.methods.temperatures import NORMALISERS, moved, permutation, smoothed_risks
from absld_search.core.trainer import Options
from absld_search.words import UsageError
from tests.core import zoo
from tests.core.zoo import images, network, same, stepped, trainer

END = Epoch(1, 10, 1.0)
RISK = torch.linspace(0.5, 2, 10).double()
risks = st.lists(st.floats(0.01, 10), min_size=10, max_size=10)


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


def ready(coupling: str = "dual", **knobs: Any) -> ABSLD:
    method = ABSLD(coupling=coupling, **knobs)
    method.setup(10, "cpu")
    method.start_epoch(END)
    return method


def means(adv: Tensor, clean: Tensor | None = None) -> dict[str, Tensor]:
    return {"adv_risk": adv, "clean_risk": adv if clean is None else clean, "count": torch.full((10,), 7.0)}


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
    for coupling, who in moving.items():
        method = ready(coupling)
        method.end_epoch(means, END)
        found = tuple(int(not torch.equal(tau, torch.ones(10))) for tau in (method.tau_adv, method.tau_clean))
        assert found == who, coupling


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


@st.composite
def hostile_risks(draw: st.DrawFn) -> Tensor:
    """What must never become a temperature: equal, nan, absent, infinite, of any size and spread."""
    kind = draw(st.sampled_from(["equal", "one_nan", "absent", "spread", "infinite", "zero"]))
    exponents = st.floats(-300, 308) if kind == "spread" else st.floats(-2, 2)
    values = [10.0 ** draw(exponents) for _ in range(10)]
    values = [values[0]] * 10 if kind == "equal" else [0.0] * 10 if kind == "zero" else values
    lost = {"one_nan": 1, "absent": draw(st.integers(1, 10)), "infinite": draw(st.integers(1, 10))}.get(kind, 0)
    for c in draw(st.permutations(range(10)))[:lost]:
        values[c] = float("inf") if kind == "infinite" else float("nan")
    return torch.tensor(values, dtype=torch.float64)


@given(hostile_risks(), st.sampled_from(NORMALISERS), st.floats(0, 2), st.sampled_from(["dual", "mixed", "product"]))
@settings(max_examples=1000, deadline=None)
def test_no_risk_breaks_a_temperature(risk: Tensor, normaliser: str, rate: float, coupling: str) -> None:
    method = ready(coupling, temperature_lr=rate, update_normaliser=normaliser)
    for number in (1, 2):
        method.end_epoch(means(risk), Epoch(number, 10, 1.0))
        assert ((method.tau_adv >= 0.5) & (method.tau_adv <= 5)).all()
    unseen = ~risk.isfinite()
    assert (method.tau_adv[unseen] == 1).all()
    if not unseen.all() and risk[~unseen].max() > 2 * risk[~unseen].min() and rate > 0.01 and coupling != "mixed":
        assert not torch.equal(method.tau_adv, torch.ones(10)), "what is known still moves"


@given(risks, st.floats(0.01, 100), st.floats(-5, 5), st.sampled_from(["max_gap", "std", "sign"]))
@settings(max_examples=300, deadline=None)
def test_the_rule_knows_neither_scale_nor_shift(values: list[float], scale: float, shift: float, kind: str) -> None:
    risk = torch.tensor(values, dtype=torch.float64)
    gap = (risk - risk.mean()).abs()
    if gap.max() < 1e-2 or gap.min() < 1e-6:
        return  # gaps that rounding of the shift would decide
    tau, bounds = torch.ones(10, dtype=torch.float64), (0.01, 50.0)
    plain, other = (moved(tau, r, 0.1, bounds, kind) for r in (risk, scale * risk + shift))
    assert torch.allclose(plain, other, atol=1e-9)


def test_normalisers_by_hand() -> None:
    """Risks 1, 2, 6: mean 3, gaps -2, -1, 3; population deviation sqrt(14 / 3)."""
    tau, risk, bounds = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 2.0, 6.0]).double(), (0.1, 10.0)
    gap, deviation = torch.tensor([-2.0, -1.0, 3.0]).double(), (14 / 3) ** 0.5
    expected = {"max_gap": 1 - 0.1 * gap / 3, "std": 1 - 0.1 * gap / deviation, "sign": 1 - 0.1 * gap.sign(),
                "log_proportional": (-0.1 * gap / 3).exp()}  # fmt: skip
    assert set(expected) == set(NORMALISERS)
    for kind, values in expected.items():
        assert torch.allclose(moved(tau, risk, 0.1, bounds, kind), values), kind


def test_log_proportional_feels_the_size_of_a_gap_and_max_gap_does_not() -> None:
    tau, bounds = torch.ones(10), (0.1, 10.0)
    for kind, feels in (("max_gap", False), ("log_proportional", True)):
        small, large = (moved(tau, 1 + s * RISK, 0.1, bounds, kind)[-1] for s in (0.01, 1.0))
        assert (abs(float(small - large)) > 0.01) == feels


def test_smooth_hard_is_the_mirror_of_sharpen_hard() -> None:
    sharp, smooth = ready(), ready(direction="smooth_hard")
    for method in (sharp, smooth):
        method.end_epoch(means(RISK), END)
    assert torch.allclose(sharp.tau_adv - 1, 1 - smooth.tau_adv, atol=1e-6) and sharp.tau_adv[9] < 1


def test_permuted_moves_each_class_by_another_ones_risk() -> None:
    plain, permuted = ready(), ready(direction="permuted")
    for method in (plain, permuted):
        method.end_epoch(means(RISK), END)
    order = permutation(10, 0)
    assert torch.equal(permuted.tau_adv, plain.tau_adv[order])
    assert not (order == torch.arange(10)).any() and sorted(order.tolist()) == list(range(10))
    assert not torch.equal(order, permutation(10, 1))


def test_manual_temperatures_never_move() -> None:
    words = "0.5 0.6 0.7 0.8 0.9 1 2 3 4 5"
    method = ready(direction="manual", manual_temperatures=words)
    method.end_epoch(means(RISK), END)
    assert method.tau_adv.tolist() == method.tau_clean.tolist() == pytest.approx([float(w) for w in words.split()])
    for wrong in ("1 2 3", "1 1 1 1 1 1 1 1 1 -1", "a 1 1 1 1 1 1 1 1 1"):
        with pytest.raises(UsageError, match="manual_temperatures"):
            ready(direction="manual", manual_temperatures=wrong)
    for contradiction in ({"direction": "manual"}, {"manual_temperatures": words}):
        with pytest.raises(UsageError, match="need each other"):
            ABSLD(**contradiction)


def test_each_signal_is_read() -> None:
    """Class 9 is hard by every signal, as each signal's size and sign have it."""
    found = means(RISK) | {"adv_kl": RISK, "clean_kl": RISK, "survived": 5 - RISK,
                           "adv_correct": 1 - RISK / 3, "clean_correct": 1 - RISK / 3}  # fmt: skip
    for signal in ("ce", "kl", "robust_error", "kappa"):
        method = ready(risk_signal=signal)
        method.end_epoch(found, END)
        assert method.tau_adv[9] == pytest.approx(0.9) and method.tau_clean[9] == pytest.approx(0.9), signal
    with pytest.raises(KeyError):
        ready(risk_signal="kl").end_epoch(means(RISK), END)


def test_the_monitor_speaks_before_an_epoch() -> None:
    method = ready(risk_signal="monitor_ce")
    assert method.measured_on() == "monitor" and ready().measured_on() == ""
    method.end_epoch(means(RISK), END)
    method.start_epoch(Epoch(1, 10, 1.0), means(RISK))
    assert torch.equal(method.tau_adv, torch.ones(10)), "the untrained student's errors say nothing"
    method.start_epoch(Epoch(2, 10, 1.0), means(RISK))
    assert method.tau_adv[9] == pytest.approx(0.9)


def test_a_sum_reads_a_frequent_class_as_hard_and_a_mean_does_not() -> None:
    frequent = means(torch.ones(10).double() + 1e-9 * RISK) | {"count": torch.tensor([70.0] + [7.0] * 9)}
    by_sum, by_mean = ready(risk_aggregation="sum"), ready()
    for method in (by_sum, by_mean):
        method.end_epoch(frequent, END)
    assert by_sum.tau_adv[0] == pytest.approx(0.9) and torch.equal(by_mean.tau_adv, torch.ones(10))


def test_running_average_of_risks() -> None:
    nothing = torch.full((2, 3), float("nan")).double()
    first, nan = torch.tensor([[1.0, 2.0, 3.0]] * 2).double(), float("nan")
    once = smoothed_risks(nothing, first, 0.9)
    assert torch.equal(once, first)
    twice = smoothed_risks(once, torch.tensor([[2.0, nan, 1.0]] * 2).double(), 0.9)
    assert torch.allclose(twice[0], torch.tensor([1.1, 2.0, 2.8]).double())


@pytest.mark.parametrize(
    ("unit", "every", "moves"), [("epoch", 1, [1, 2, 3, 4, 5, 6]), ("epoch", 3, [3, 6]), ("once", 2, [2])]
)
def test_how_often_temperatures_move(unit: str, every: int, moves: list[int]) -> None:
    method, found = ready(update_unit=unit, update_every=every), []
    for number in range(1, 7):
        before = method.tau_adv
        method.end_epoch(means(RISK), Epoch(number, 6, 1.0))
        found += [] if torch.equal(before, method.tau_adv) else [number]
    assert found == moves


def test_temperatures_can_move_every_few_iterations() -> None:
    method, seen = zoo.ready("absld", update_unit="iteration", update_every=3), []
    for seed in range(6):
        if seed % 2 == 0:  # epochs of two iterations: shorter than the way from one move to the next
            method.start_epoch(Epoch(1 + seed // 2, 3, 1.0))
        before = method.tau_adv
        stepped(method, images(24, 10, seed=seed))
        seen.append(not torch.equal(before, method.tau_adv))
    assert seen == [False, False, True, False, False, True]
    with pytest.raises(UsageError, match="monitor_ce"):
        ABSLD(update_unit="iteration", risk_signal="monitor_ce")


def test_labels_without_a_teacher() -> None:
    y = torch.arange(10)
    labels = soft_labels(smoothed_logits(y, 10, 0.1, torch.zeros(1)))
    assert torch.allclose(labels, torch.full((10, 10), 0.1 / 9) + torch.eye(10) * (0.9 - 0.1 / 9))
    softer = soft_labels(smoothed_logits(y, 10, 0.1, torch.zeros(1)), torch.linspace(0.5, 2, 10))
    right = softer.diagonal()
    assert (right.diff() < 0).all(), "a higher temperature is more smoothing"
    assert torch.allclose(softer - torch.diag(right), (1 - right)[:, None] / 9 * (1 - torch.eye(10)), atol=1e-6)


def test_the_self_teacher_is_the_average_of_the_student() -> None:
    source, student = SelfTeacher(0.9), network(seed=1)
    source.follow(student)
    before = student.linear.weight.clone()
    with torch.no_grad():
        student.linear.weight += 1
    source.follow(student)
    assert source.model is not None and torch.allclose(source.model.linear.weight, before + 0.1)
    batch = images(12, 10)
    labels = soft_labels(source.logits(batch.x, batch.y, 0.5))
    assert torch.allclose(labels, 0.5 * torch.eye(10)[batch.y] + 0.5 * source.model(batch.x).softmax(1), atol=1e-6)


@pytest.mark.parametrize("source", ["ema", "label_smoothing"])
def test_no_teacher_is_asked_where_none_is_needed(source: str) -> None:
    trained = trainer("absld", label_source=source, class_weights="dafa", class_margin="dafa")
    trained.teachers = {}
    trained.run(lambda end: None)
    with pytest.raises(UsageError, match="needs label_source=teacher"):
        ABSLD(label_source=source, attack_target="adaad")


@pytest.mark.parametrize("words", [
    {"class_weights": "fair_ard"}, {"class_weights": "dafa", "rules_warm_up": 0.5}, {"class_margin": "cfa"},
    {"class_margin": "dafa", "rules_warm_up": 0.5}, {"attack_target": "ce"}, {"attack_target": "adaad"},
    {"attack_target": "trades"}, {"attack_target": "teacher"}, {"attack_start": "uniform"},
    {"attack_mode": "train"}, {"kl_reduction": "batchmean"}, {"adv_weight": 0.5}, {"norm_matched": True},
    {"label_source": "ema"}, {"label_source": "label_smoothing"}, {"direction": "permuted"},
    {"direction": "smooth_hard"}, {"update_normaliser": "std"}, {"update_normaliser": "sign"},
    {"update_normaliser": "log_proportional"}, {"risk_signal": "kl"}, {"risk_signal": "robust_error"},
    {"risk_signal": "monitor_ce"}, {"risk_signal": "kappa"}, {"risk_aggregation": "sum"},
    {"risk_aggregation": "ema", "risk_ema_decay": 0.5}, {"update_every": 2}, {"update_unit": "iteration"},
    {"update_unit": "iteration", "update_every": 3},
    {"update_unit": "once", "update_every": 2}, {"released": True},
], ids=str)  # fmt: skip
def test_every_factor_changes_the_training_and_resumes(words: dict[str, Any]) -> None:
    """After three epochs the student differs from plain ABSLD's; cut after the first, it ends the same."""
    schedule = zoo.Schedule(3, 50, 0.5, 0.9, 2e-4, (0.5,), 0.1)
    plain, varied, half, rest = (trainer("absld", schedule=schedule, **each) for each in ({}, words, words, words))
    for one in (plain, varied):
        one.run(lambda end: None)
    half.run_epoch()
    rest.load_state_dict(half.state_dict())
    rest.run(lambda end: None)
    assert not same(plain, varied)
    assert zoo.equal(varied.state_dict(), rest.state_dict())
    assert Options() == varied.options


def test_norm_matching_keeps_the_length_and_the_direction_apart() -> None:
    """The pull on the student's logits: plain label's direction, tempered label's length."""
    generator = torch.Generator().manual_seed(0)
    z, logits = (3 * torch.randn(20, 10, generator=generator).double() for _ in range(2))
    plain, tempered = soft_labels(z), soft_labels(z, 0.5)
    logits.requires_grad_()

    def pull(losses: Tensor) -> Tensor:
        return torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0]

    matched = pull(matched_pull(plain)(tempered, logits))
    assert torch.allclose(matched.norm(dim=1), pull(kl_div(tempered, logits)).norm(dim=1))
    directions = torch.cosine_similarity(matched, pull(kl_div(plain, logits)))
    assert torch.allclose(directions, torch.ones(20, dtype=torch.float64))
    assert torch.equal(matched_pull(plain)(plain, logits), kl_div(plain, logits)), "at temperature one, RSLAD"


def test_released_is_its_named_switches() -> None:
    released, switched = trainer("absld", released=True), trainer("absld", coupling="product", risk_aggregation="sum")
    for one in (released, switched):
        one.run(lambda end: None)
    assert same(released, switched)


@pytest.mark.parametrize("rule", ["none", "cfa", "dafa"])
def test_margins_scale_radius_and_only_dafa_the_step(rule: str) -> None:
    method = ready(class_margin=rule)
    method.margins = torch.linspace(0.5, 1.5, 10)
    eps, step_size = (torch.as_tensor(value) for value in method.radius(torch.arange(10)))
    scale = method.margins if rule != "none" else torch.ones(())
    assert torch.allclose(eps, scale * method.eps)
    assert torch.allclose(step_size, (scale if rule == "dafa" else torch.ones(())) * method.step_size)


def test_risks_whose_sum_overflows_still_move_temperatures() -> None:
    risk = torch.tensor([1.7e308, 1.7e308] + [1.0] * 8, dtype=torch.float64)
    found = moved(torch.ones(10), risk, 0.1, (0.5, 5.0))
    assert found[:2].tolist() == pytest.approx([0.9, 0.9]) and (found[2:] > 1).all()


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.sampled_from([float("nan"), 0.0, 1e-300, 1e-8, 1.0, 1.0 + 1e-9, 7.5, 1e300]), min_size=1, max_size=12),
    st.sampled_from(NORMALISERS),
    st.randoms(use_true_random=False),
)
def test_n2_any_risks_of_any_number_of_classes(values: list[float], normaliser: str, random: Any) -> None:
    """Zero variance, a nan class, an absent one, a single class, a spread of 600 orders of magnitude."""
    risk = torch.tensor(values, dtype=torch.float64)
    tau = torch.linspace(0.6, 4.9, len(values)) if len(values) > 1 else torch.ones(1)
    found = moved(tau, risk, 0.3, (0.5, 5.0), normaliser)
    assert found.isfinite().all() and found.min() >= 0.5 and found.max() <= 5.0
    assert torch.equal(found[risk.isnan()], tau[risk.isnan()]), "a class that was not seen keeps its temperature"
    seen = risk[risk.isfinite()]
    if len(seen) and seen.min() == seen.max():
        assert torch.equal(found, tau), "nothing to tell classes apart by"
    order = list(range(len(values)))
    random.shuffle(order)
    assert torch.allclose(moved(tau[order], risk[order], 0.3, (0.5, 5.0), normaliser), found[order], atol=1e-6)
