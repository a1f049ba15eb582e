"""The attacks of evaluation: against models whose best perturbation is known, and against pyautoattack."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from absld_search.core import attacks, data, evaluation, metrics, models, speed, verdicts
from absld_search.core.attack_names import ATTACKS, KINDS, STRENGTH, canonical, of_test, strongest
from absld_search.core.config import TrialConfig
from absld_search.core.speed import Speed
from absld_search.core.trial import run_trial
from absld_search.words import UsageError
from absld_search.workloads import DIGITS

EVERY: dict[str, attacks.Attack] = {
    "fgsm": attacks.Fgsm(),
    "pgd": attacks.Pgd(num_steps=40),
    "pgd, last iterate": attacks.Pgd(num_steps=40, drop=False),
    "pgd, gaussian": attacks.Pgd(num_steps=40, start="gaussian"),
    "pgd, margin, restarts": attacks.Pgd(num_steps=20, loss="margin", restarts=3),
    "pgd, sat": attacks.PGD_SAT,
    "confused": attacks.ConfusedPgd(torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1]])),
    "apgd": attacks.Apgd(),
    "apgd, dlr, restarts": attacks.Apgd(loss="dlr", restarts=2),
    "apgd-t": attacks.ApgdTargeted(),
    "adaptive": attacks.Adaptive(),
    "fab-t": attacks.FabTargeted(),
    "square": attacks.Square(num_queries=1500),
}


class Linear(nn.Module):
    """Class 0 against class 1 along one direction, and classes that never win, by default two."""

    def __init__(self, seed: int = 0, shape: tuple[int, ...] = (1, 3, 3), num_classes: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator))

    def distance(self, x: Tensor) -> Tensor:
        """The least L-infinity perturbation that changes the class, (B,), where it stays inside [0, 1]."""
        return (self.lead(x).abs() / self.weight.abs().sum()).detach()

    def lead(self, x: Tensor) -> Tensor:
        return ((x - 0.5) * self.weight).flatten(1).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        lead = self.lead(x)
        never = torch.full_like(lead, -5.0)
        return torch.stack([lead, -lead, *(never - place for place in range(self.num_classes - 2))], 1)


class Constant(nn.Module):
    """The same answer to everything, with a gradient of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight + torch.tensor([1.0, 0.5, 0.0, -0.5])


def images(n: int = 24) -> Tensor:
    """Far enough from 0 and 1 for every radius used here."""
    return 0.3 + 0.4 * torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def draws(n: int = 24) -> attacks.ImageDraws:
    return attacks.ImageDraws(torch.arange(n), 5)


@pytest.fixture(params=EVERY)
def attack(request: pytest.FixtureRequest) -> attacks.Attack:
    return EVERY[request.param]


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_reaches_the_known_optimum_of_a_linear_model_within_a_hundredth(
    attack: attacks.Attack, num_classes: int
) -> None:
    if isinstance(attack, attacks.ConfusedPgd) and num_classes < 4:
        attack = attacks.ConfusedPgd(torch.tensor([[1], [0], [0]]))
    model, x = Linear(num_classes=num_classes), images()
    y, distance = model(x).argmax(1), model.distance(x)
    # Square as released never draws the last row and column (its place is cut off one short), so it needs more room.
    ample = 2.5 if isinstance(attack, attacks.Square) else 1.01
    assert (model(attack(model, x, y, ample * distance, draws())).argmax(1) != y).all()
    assert (model(attack(model, x, y, 0.99 * distance, draws())).argmax(1) == y).all()


def test_fgsm_is_exact_on_a_linear_model() -> None:
    model, x = Linear(), images()
    y = model(x).argmax(1)
    direction = torch.where(y == 0, -1.0, 1.0)[:, None, None, None] * model.weight.sign()
    found = attacks.Fgsm()(model, x, y, 0.1, draws())
    assert torch.equal(found, (x + 0.1 * direction).clamp(0, 1))


def test_never_claims_success_on_a_constant_model(attack: attacks.Attack) -> None:
    model, x, y = Constant(), images(), torch.zeros(24, dtype=torch.int64)
    found = attack(model, x, y, 0.2, draws())
    assert (model(found).argmax(1) == y).all()


def test_stays_in_each_ball_and_in_the_image_and_touches_nothing_else(attack: attacks.Attack) -> None:
    torch.manual_seed(2)
    model, x, radius = Linear(3), torch.rand(24, 1, 3, 3), torch.rand(24) * 0.3
    y, before, state = model(x).argmax(1), x.clone(), torch.get_rng_state()
    with attacks.inputs_only(model):
        found = attack(model, x, y, radius, draws())
    assert ((found - x).abs().flatten(1).amax(1) <= radius + 1e-6).all()
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert model.weight.grad is None and model.weight.requires_grad


def test_zero_radius_changes_nothing(attack: attacks.Attack) -> None:
    model, x = Linear(), images()
    found = attack(model, x, model(x).argmax(1), 0.0, draws())
    assert torch.allclose(found, x, atol=3e-3)  # the Gaussian start alone leaves the image, by its own 0.001
    assert EVERY["pgd, gaussian"] is attack or torch.equal(found, x)


def test_words_of_pgd_are_checked() -> None:
    with pytest.raises(ValueError, match="loss must be one of ce, kl, margin"):
        attacks.Pgd(loss="crossentropy")
    with pytest.raises(ValueError, match="start must be one of"):
        attacks.Pgd(start="gauss")


def test_named_settings_have_the_papers_steps() -> None:
    assert attacks.PGD_SAT.step_size is None and attacks.PGD_SAT.num_steps == 20  # a quarter of 8/255 is 2/255
    assert attacks.pgd_trades(0.031).step_size == pytest.approx(0.003)


def test_gaussian_start_has_the_width_it_says() -> None:
    x = torch.full((500, 1, 3, 3), 0.5)
    found = attacks.Pgd(num_steps=0, start="gaussian")(
        Constant(), x, torch.zeros(500, dtype=torch.int64), 0.1, draws(500)
    )
    assert (found - x).std() == pytest.approx(0.001, rel=0.05)


def test_kl_reaches_the_image_it_was_told_to_leave() -> None:
    model, x = Linear(), images()
    y, distance = model(x).argmax(1), model.distance(x)
    found = attacks.Pgd(num_steps=60, loss="kl", drop=False)(model, x, y, 1.5 * distance, draws())
    assert (model(found).argmax(1) != y).float().mean() > 0.4  # a divergence rises to both sides; half start uphill


def test_most_confused_are_the_wrong_classes_believed_most() -> None:
    believed = torch.tensor([[0.5, 0.1, 0.4, 0.0], [0.2, 0.5, 0.0, 0.3]])
    assert attacks.most_confused(believed, torch.tensor([0, 1]), 2)[:2].tolist() == [[2, 1], [3, 0]]


def test_transfer_from_the_model_itself_is_the_attack_itself() -> None:
    model, other, x = Linear(), Linear(7), images()
    y, distance = model(x).argmax(1), model.distance(x)
    own = attacks.Transfer(model)(other, x, y, 1.01 * distance, draws())
    assert (model(own).argmax(1) != y).all()
    strange = attacks.Transfer(other)(model, x, y, 1.01 * distance, draws())
    assert (model(strange).argmax(1) != y).float().mean() < 0.5


def test_draws_are_functions_of_the_image_and_the_turn() -> None:
    together = attacks.ImageDraws(torch.tensor([7, 3, 9, 5]), 1)
    alone = attacks.ImageDraws(torch.tensor([9]), 1)
    assert torch.equal(together.per_image(torch.tensor([2]), (4,)), alone.per_image(torch.tensor([0]), (4,)))
    assert not torch.equal(alone.per_image(torch.tensor([0]), (4,)), alone.per_image(torch.tensor([0]), (4,), 1))


def test_batch_draws_are_torchs_own_stream() -> None:
    found = attacks.BatchDraws(11).per_image(torch.arange(3), (2, 2))
    with torch.random.fork_rng():
        torch.manual_seed(11)
        assert torch.equal(found, torch.rand(3, 2, 2))


# --- by name -------------------------------------------------------------------------------------------------------


def test_every_stage_of_every_name_is_there() -> None:
    assert {stage for named in ATTACKS.values() for stage in named.stages} == set(evaluation._STAGES)
    assert set(KINDS.values()) == set(metrics.KINDS) and len(set(KINDS.values())) == len(KINDS)
    assert KINDS["apgd-ce"] == "robust"


def test_words_and_near_misses() -> None:
    assert (canonical("cw"), canonical("robust"), canonical("aa")) == ("cw20", "apgd-ce", "aa")
    with pytest.raises(UsageError, match="Did you mean 'pgd20'"):
        canonical("pdg20")


def test_the_strongest_stored_attack() -> None:
    assert strongest(of_test("digits", "cpu")) == "apgd"
    assert strongest(of_test("cifar10", "cuda")) == strongest(STRENGTH) == "aa"
    assert strongest(of_test("cifar10", "cpu")) == "apgd-top3" and of_test("digits", "cuda") == of_test("digits", "cpu")
    assert strongest(["clean", "apgd-lowest4", "pgd20"]) == "pgd20"


# --- a trained network ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nn.Module]:
    folder = tmp_path_factory.mktemp("student")
    config = TrialConfig.from_words({"method": "sat", "epochs": 4, "num_steps": 3}, "digits")
    run_trial(config, folder, lambda *_: None)
    model = models.build("cnn-8", 10, 1, 0)
    import safetensors.torch

    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    yield model.eval()


@pytest.fixture(scope="module")
def some() -> data.Split:
    return data.load_test("digits", DIGITS.split, "cpu").first(40)


def flags(model: nn.Module, split: data.Split, *names: str, **more: object) -> dict[str, Tensor]:
    found = evaluation.evaluate(model, split, names, DIGITS.eps, DIGITS.eval_step_size, **more)
    return {outcome.attack: torch.from_numpy(outcome.correct) for outcome in found}


def test_stronger_attacks_leave_less(trained: nn.Module, some: data.Split) -> None:
    found = flags(
        trained, some, "clean", "fgsm", "pgd20", "pgd20-confused", "apgd-ce", "apgd-top3", "apgd-lowest4", "apgd"
    )
    for name, right in found.items():
        assert (right <= found["clean"]).all(), name
    assert (found["apgd"] <= found["apgd-ce"]).all() and (found["apgd"] <= found["apgd-top3"]).all()
    assert found["apgd"].sum() < found["fgsm"].sum() < found["clean"].sum()


def test_lowest_classes_and_only_those_are_attacked_again(trained: nn.Module, some: data.Split) -> None:
    found = flags(trained, some, "apgd-ce", "apgd-lowest4", "apgd")
    accuracy, _ = metrics.class_accuracies(found["apgd-ce"], some.labels, 10)
    lowest = torch.isin(some.labels, torch.from_numpy(accuracy.argsort(kind="stable")[:4].copy()))
    assert torch.equal(found["apgd-lowest4"][lowest], found["apgd"][lowest])
    assert torch.equal(found["apgd-lowest4"][~lowest], found["apgd-ce"][~lowest])


def test_outcomes_do_not_depend_on_the_batch(
    trained: nn.Module, some: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("pgd20", "apgd-ce", "apgd-top3")
    whole = flags(trained, some, *names)
    monkeypatch.setattr(evaluation, "CHUNK", 7)
    pieces = flags(trained, some, *names)
    assert all(torch.equal(whole[name], pieces[name]) for name in names)


def test_dropping_fooled_images_is_never_weaker_than_the_last_iterate(trained: nn.Module, some: data.Split) -> None:
    x, y, ids, _ = some.at(torch.arange(len(some)))
    radius, right = DIGITS.eps, {}
    for drop in (True, False):
        found = attacks.Pgd(20, DIGITS.eval_step_size, drop=drop)(trained, x, y, radius, attacks.ImageDraws(ids, 1))
        right[drop] = trained(found).argmax(1) == y
    assert (right[True] <= right[False]).all()


def test_goes_on_where_it_was_killed(
    trained: nn.Module, some: data.Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "CHUNK", 8)
    some = some.first(16)
    whole = flags(trained, some, "apgd-top3")
    store, seen = verdicts.Store(tmp_path, verdicts.identity(trained)), []

    def stop_at_the_second(stage: str, done: int, total: int) -> None:
        seen.append((stage, done))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flags(trained, some, "apgd-top3", store=store, progress=stop_at_the_second)
    assert len(list(tmp_path.iterdir())) == 2
    trained = copy.deepcopy(trained)
    speed.choose(trained, Speed(fold=False))  # a folded stand-in has none of its hooks
    forwards: list[int] = []
    handle = trained.register_forward_hook(lambda *_: forwards.append(1))
    assert torch.equal(flags(trained, some, "apgd-top3", store=store)["apgd-top3"], whole["apgd-top3"])
    resumed = len(forwards)
    flags(trained, some, "apgd-top3", store=store)
    assert len(forwards) - resumed == 2, "what is stored is not worked out again, only the clean passes"
    other = verdicts.Store(tmp_path, verdicts.identity(models.build("cnn-8", 10, 1, 3)))
    assert other.get("image+apgd-ce", 0, torch.arange(8)) is None, "another network's verdicts are ignored"
    handle.remove()
    store.clear()
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_a_torn_file_of_verdicts_is_ignored(tmp_path: Path) -> None:
    store = verdicts.Store(tmp_path, "x")
    store.put("apgd-ce", 0, torch.arange(3), torch.tensor([True, False, True]))
    assert store.get("apgd-ce", 0, torch.arange(3)).tolist() == [True, False, True]
    path = next(tmp_path.iterdir())
    for content in ("[]", path.read_text()[:20], ""):
        path.write_text(content)
        assert store.get("apgd-ce", 0, torch.arange(3)) is None


def test_nan_weights_are_refused_by_name(some: data.Split) -> None:
    model = models.build("cnn-8", 10, 1, 0)
    with torch.no_grad():
        model.linear.bias.fill_(float("nan"))
    with pytest.raises(evaluation.NonFiniteLogits, match="logits under clean"):
        flags(model, some, "apgd-ce")


def test_transfer_needs_a_source(trained: nn.Module, some: data.Split) -> None:
    with pytest.raises(UsageError, match="transfer"):
        flags(trained, some, "transfer")
    found = flags(trained, some, "clean", "transfer", source=models.build("cnn-8", 10, 1, 5).eval())
    assert (found["transfer"] <= found["clean"]).all()


# --- against pyautoattack ------------------------------------------------------------------------------------------

SEED, EPS = 3, DIGITS.eps
COMMON = {"eps": EPS, "seed": SEED, "verbose": False, "device": "cpu"}
PAIRS: dict[str, tuple[attacks.Attack, Callable[[nn.Module], object]]] = {
    "apgd-ce": (attacks.Apgd(30), lambda model: APGDAttack(model, n_iter=30, **COMMON)),
    "apgd-dlr": (attacks.Apgd(30, loss="dlr"), lambda model: APGDAttack(model, n_iter=30, loss="dlr", **COMMON)),
    "apgd, 3 restarts": (attacks.Apgd(9, restarts=3), lambda model: APGDAttack(model, 9, n_restarts=3, **COMMON)),
    "apgd-t": (attacks.ApgdTargeted(15), lambda model: APGDAttack_targeted(model, n_iter=15, **COMMON)),
    "fab-t": (attacks.FabTargeted(10), lambda model: FABAttack_PT(model, n_iter=10, targeted=True, **COMMON)),
    "square": (
        attacks.Square(600),
        lambda model: SquareAttack(model, n_queries=600, resc_schedule=False, **COMMON),
    ),
}


@pytest.mark.parametrize(
    "attack",
    [
        lambda step: attacks.Pgd(3, step, restarts=3),
        lambda step: attacks.ConfusedPgd(torch.arange(30).reshape(10, 3).flip(0) % 10, 3, step),
    ],
)
def test_a_step_for_each_image_is_that_step(
    attack: Callable[[attacks.base.Radius], attacks.Attack], trained: nn.Module, some: data.Split
) -> None:
    x, y = some.images[:40], some.labels[:40]
    steps = torch.where(torch.arange(40) % 2 == 0, 0.01, 0.03)
    draws = attacks.ImageDraws(torch.arange(40), 0)
    both = attack(steps)(trained, x, y, 0.1, draws)
    for step, rows in ((0.01, slice(0, None, 2)), (0.03, slice(1, None, 2))):
        assert torch.equal(both[rows], attack(step)(trained, x, y, 0.1, draws)[rows])
    assert not torch.equal(both, attack(0.01)(trained, x, y, 0.1, draws))


@pytest.mark.parametrize("name", PAIRS)
def test_verdicts_are_pyautoattacks(name: str, trained: nn.Module, some: data.Split) -> None:
    x, y = some.images, some.labels
    standing = trained(x).argmax(1) == y
    ours, theirs = PAIRS[name]
    with torch.random.fork_rng():
        expected = theirs(trained).perturb(x[standing].clone(), y[standing].clone())  # type: ignore[attr-defined]
    found = ours(trained, x[standing], y[standing], EPS, attacks.BatchDraws(SEED))
    right, expected_right = (trained(points).argmax(1) == y[standing] for points in (found, expected))
    assert torch.equal(right, expected_right)
    assert 0 < right.sum() < len(right), "a sample on which the attack decides something"


def test_ratios_have_the_packages_bits_where_it_has_them() -> None:
    generator = torch.Generator().manual_seed(4)
    for num_classes in (4, 5, 10, 100):
        logits = 20 * torch.randn(50, num_classes, generator=generator)
        y = torch.arange(50) % num_classes
        package = APGDAttack_targeted(nn.Identity(), **COMMON)
        package.y_target = (y + 1) % num_classes
        assert torch.equal(attacks.apgd.targeted_dlr(logits, y, package.y_target), package.dlr_loss_targeted(logits, y))
        assert torch.equal(attacks.apgd.dlr(logits, y), package.dlr_loss(logits, y))


def test_ratios_of_three_and_two_classes() -> None:
    y, target = torch.tensor([0]), torch.tensor([1])
    three, two = torch.tensor([[5.0, 3.0, 1.0]]), torch.tensor([[5.0, 3.0]])
    assert attacks.apgd.targeted_dlr(three, y, target).item() == attacks.apgd.dlr(three, y).item() == -2 / 4
    assert attacks.apgd.targeted_dlr(two, y, target).item() == attacks.apgd.dlr(two, y).item() == -2


@pytest.mark.slow
def test_autoattacks_flags_after_every_stage(trained: nn.Module, some: data.Split) -> None:
    some = some.first(24)
    run = evaluation._Run(trained, evaluation.Asked(some, EPS, 0.02, seed=SEED))
    left, stages = torch.arange(len(some)), ATTACKS["aa"].stages
    for number, stage in enumerate(stages):
        with torch.random.fork_rng():
            package = AutoAttack(trained, eps=EPS, seed=SEED)
            package.attacks_to_run = [stage]
            _, answer = package.run_standard_evaluation(some.images[left], some.labels[left])
        left = left[answer == some.labels[left]]
        assert torch.nonzero(run.after("batch", stages[: number + 1]))[:, 0].tolist() == left.tolist(), stage
