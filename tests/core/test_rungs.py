"""Rungs: a budget's training is the same whichever way it is reached, and no epoch of a trunk is trained twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from absld_search.core import checkpoints, evaluation, teacher_making
from absld_search.core.config import TrialConfig
from absld_search.core.rungs import at, check, paid, run_rung, rungs
from absld_search.core.trainer import Trainer
from absld_search.core.trial import run_trial
from absld_search.words import UsageError
from absld_search.workloads import workload

SMOKE = "digits-smoke"
WSD = {"schedule": "wsd", "epochs": 9, "warmup_share": 0.2}
ABSLD = {**WSD, "temperature_lr": 0.5}
TABLES = ("epochs", "classes", "images")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "STEPS", 1)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(length, epoch) of every epoch that any trainer trains from now on."""
    teacher_making.ensure_teacher(workload(SMOKE), workload(SMOKE).teacher, "cpu", say=lambda line: None)
    seen: list[tuple[int, int]] = []
    real = Trainer.run_epoch

    def counted(self: Trainer) -> object:
        seen.append((self.schedule.epochs, self.epoch + 1))
        return real(self)

    monkeypatch.setattr(Trainer, "run_epoch", counted)
    return seen


def silent(epoch: int, metrics: dict[str, float]) -> None:
    pass


def equal(first: Path, second: Path) -> bool:
    """Whether two trainings left the same tables and the same weights."""
    tables = [pq.ParquetFile(a / f"{name}.parquet").read() for name in TABLES for a in (first, second)]
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, second)]
    return all(a.equals(b) for a, b in zip(tables[::2], tables[1::2], strict=True)) and weights[0] == weights[1]


@given(st.integers(1, 1000), st.floats(1.1, 10), st.data())
def test_budgets_rise_from_the_grace_to_the_whole(epochs: int, eta: float, data: st.DataObject) -> None:
    grace = data.draw(st.integers(1, epochs))
    found = rungs(epochs, eta, grace)
    assert found[-1] == epochs and found[0] >= grace
    assert list(found) == sorted(set(found))


def test_budgets_by_hand() -> None:
    assert rungs(300, 3, 10) == (11, 33, 100, 300)
    assert rungs(30, 3, 3) == (3, 10, 30)
    assert rungs(8, 3) == (1, 3, 8)
    with pytest.raises(ValueError, match="eta > 1"):
        rungs(30, 1, 1)


@pytest.mark.parametrize(
    "words",
    [ABSLD, {**WSD, "method": "dafa", "averaging": "ema", "selection": "avg"}],
    ids=["absld", "dafa"],
)
def test_a_branch_is_the_training_of_its_length_and_the_trunk_goes_on_to_the_bit(
    words: dict[str, Any], tmp_path: Path, trained: list[tuple[int, int]]
) -> None:
    """Trunk, branch at 3, branch at 6, the whole; against three trainings from nothing. DAFA has a phase by shares
    of the epochs, and so has the average of weights; a rule that selects an epoch remembers those of the trunk."""
    config = TrialConfig.from_words(words, SMOKE)
    found = {budget: run_rung(config, budget, tmp_path / "rungs", silent) for budget in (3, 6, 9)}
    assert trained == [(9, 1), (9, 2), (3, 3), (9, 3), (9, 4), (6, 5), (6, 6), *((9, epoch) for epoch in range(5, 10))]
    assert len(trained) == sum(paid(config, (3, 6, 9)))
    for budget, metrics in found.items():
        asked = at(config, budget)
        assert run_trial(asked, tmp_path / "plain" / asked.key, silent) == metrics
        assert equal(tmp_path / "rungs" / asked.key, tmp_path / "plain" / asked.key), budget
    assert not list((tmp_path / "rungs").rglob("*.pt")), "a complete training keeps no checkpoint"


def test_a_killed_branch_and_a_killed_trunk_go_on(tmp_path: Path, trained: list[tuple[int, int]]) -> None:
    config = TrialConfig.from_words(ABSLD, SMOKE)
    plain = run_trial(at(config, 6), tmp_path / "plain", silent)
    trained.clear()

    class Killed(Exception):
        pass

    for stop in (2, 5):  # in the trunk, in the branch

        def report(epoch: int, metrics: dict[str, float], stop: int = stop) -> None:
            if epoch == stop:
                raise Killed

        with pytest.raises(Killed):
            run_rung(config, 6, tmp_path, report, checkpoint_seconds=0)
    assert run_rung(config, 6, tmp_path, silent, checkpoint_seconds=0) == plain
    assert trained == [(9, 1), (9, 2), (9, 3), (9, 4), (6, 5), (6, 6)]
    trained.clear()
    assert run_rung(config, 6, tmp_path, silent) == plain and not trained


def test_a_lower_rung_asked_for_later_is_the_same(tmp_path: Path, trained: list[tuple[int, int]]) -> None:
    """The trunk is already past the point where the lower branch leaves."""
    config = TrialConfig.from_words(ABSLD, SMOKE)
    first = run_rung(config, 3, tmp_path / "rising", silent)
    run_rung(config, 6, tmp_path / "falling", silent)
    assert run_rung(config, 3, tmp_path / "falling", silent) == first


def test_compressed_rungs_are_ordinary_trainings(tmp_path: Path) -> None:
    config = TrialConfig.from_words({"epochs": 6}, SMOKE)
    shorter = TrialConfig.from_words({"epochs": 2}, SMOKE)
    assert at(config, 2) == shorter and at(config, 6) == config
    assert paid(config, (2, 6)) == [2, 6]
    assert run_rung(config, 2, tmp_path, silent) == run_trial(shorter, tmp_path / "plain", silent)


@given(st.integers(3, 400), st.floats(1.5, 5), st.floats(0.05, 1))
def test_a_trunk_costs_the_whole_training_and_its_branches(epochs: int, eta: float, decay: float) -> None:
    config = TrialConfig.from_words({"schedule": "wsd", "epochs": epochs, "decay_share": decay}, "digits")
    budgets = rungs(epochs, eta)
    lengths = [budget - at(config, budget).schedule.branch_at for budget in budgets]
    assert sum(paid(config, budgets)) == epochs + sum(lengths[:-1])
    assert all(cost >= length for cost, length in zip(paid(config, budgets), lengths, strict=True))


def test_a_rung_at_which_the_method_has_not_begun_is_refused() -> None:
    """FRL starts from TRADES, which has the first 22 of 30 epochs; a compressed rung has its own share of both."""
    check(TrialConfig.from_words({"method": "frl"}, "digits"), (10, 30))
    check(TrialConfig.from_words({"schedule": "wsd"}, "digits"), (10, 30))
    with pytest.raises(UsageError, match="frl begins after 22 epochs of trades, so a rung at 10 never sees it"):
        check(TrialConfig.from_words({"method": "frl", "schedule": "wsd"}, "digits"), (10, 30))


def test_kept_checkpoints_stay_are_checked_and_are_lent(tmp_path: Path) -> None:
    for epoch in range(1, 7):
        state = {"epoch": epoch, "weights": torch.full((50,), float(epoch))}
        checkpoints.save(tmp_path, epoch, state, keep=epoch == 2)
    kept = checkpoints.kept(tmp_path, 2)
    assert kept is not None and checkpoints.kept(tmp_path, 6) is None
    assert len(list(tmp_path.glob("*.pt"))) == 1 + checkpoints.KEEP
    assert checkpoints.newest(tmp_path)["epoch"] == 6 and checkpoints.newest(tmp_path, up_to=4)["epoch"] == 2
    checkpoints.lend(kept, tmp_path / "branch")
    assert torch.equal(checkpoints.newest(tmp_path / "branch")["weights"], torch.full((50,), 2.0))
    kept.write_bytes(kept.read_bytes()[:-1])
    assert checkpoints.kept(tmp_path, 2) is None and checkpoints.newest(tmp_path, up_to=4) is None
    checkpoints.remove(tmp_path)
    assert not list(tmp_path.glob("*.pt"))
