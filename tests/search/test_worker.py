"""Whose fault the end of a training is: a machine's faults are not charged to the configuration."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from absld_search.core.methods.absld import ABSLD
from absld_search.core.records import EpochLog
from absld_search.core.store import Store
from absld_search.search import sending, wire, worker
from absld_search.search.ledger import WAITING
from absld_search.search.searcher import LedgerSearcher
from absld_search.words import UsageError
from benchmarks.scaling import Silent
from tests.search.requests import plan
from tests.search.test_queue import open_queue


def trained(out: Path, store: tuple[str, str] = ("", ""), **words: Any) -> dict[str, Any]:
    """What a worker reports of the first training of a study."""
    row = open_queue(plan(out, **words)).take()
    assert row is not None
    folders = {"data": str(out / "nothing"), "teachers": str(out / "nothing")}
    return worker.train(row, str(out / "trainings"), folders, store=store, rest_seconds=300)


@pytest.fixture(autouse=True)
def rested(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that workers have slept, or would have."""
    found: list[float] = []
    for module in (worker, sending):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=found.append))
    return found


def test_a_machine_without_the_data_has_lost_the_training_and_takes_no_other_at_once(
    tmp_path: Path, rested: list[float]
) -> None:
    found = trained(tmp_path, workload="cifar10-smoke")
    assert "--data-dir" in found["lost"] and "failed" not in found
    assert rested == [300]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_its_gpu_has_lost_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))  # no teacher there: its training is the first to ask
    found = trained(tmp_path, device="cuda")
    assert "lost" in found and "failed" not in found, found


def test_a_fault_in_a_methods_code_is_said_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: ABSLD, y: torch.Tensor, found: dict[str, torch.Tensor]) -> None:
        found["adv_error"]

    monkeypatch.setattr(ABSLD, "_count", wrong)
    found = trained(tmp_path)
    assert found["failed"].startswith("KeyError: 'adv_error' (absld.py:") and found["failed"].endswith(", in step)")
    (told,) = (tmp_path / "trainings").glob("*/error.txt")
    assert told.read_text().rstrip().endswith("KeyError: 'adv_error'") and "in wrong" in told.read_text()


def test_a_store_that_is_away_pauses_the_study_and_nobody_is_blamed(tmp_path: Path, rested: list[float]) -> None:
    (tmp_path / "store").touch()  # nothing can be read or written below a file
    found = trained(tmp_path, store=(f"file://{tmp_path}/store", "study/trainings"))
    assert "the store is away" in found["paused"] and set(found) == {"paused", "notes", "epochs", "seconds"}
    queue = open_queue(plan(tmp_path))
    searcher = LedgerSearcher(queue, Silent(), print)
    searcher.suggest("0")
    searcher.on_trial_complete("0", wire.packed(**found))
    assert [(row["state"], row["losses"]) for row in queue.ledger.trainings()] == [(WAITING, 0)]
    assert queue.paused == found["paused"] and searcher.suggest("1") == LedgerSearcher.FINISHED


BLAMED = [
    (RuntimeError("No CUDA GPUs are available"), "lost"),
    (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "lost"),
    (OSError(5, "Input/output error"), "lost"),
    (UsageError("--teacher-dir: teacher wrn is missing"), "lost"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "failed"),
    (RuntimeError("CUDA error: out of memory"), "failed"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed"),
]


@pytest.mark.parametrize(("error", "expected"), BLAMED, ids=[str(error)[:30] for error, _ in BLAMED])
def test_what_would_repeat_itself_elsewhere_is_the_configurations(error: Exception, expected: str) -> None:
    assert list(worker._blamed(error)) == [expected]


def test_a_training_that_its_numbers_ended_leaves_its_log_in_the_store(tmp_path: Path) -> None:
    here, there = tmp_path / "here", Store(f"file://{tmp_path}/store")
    with pytest.raises(ArithmeticError), sending.Sending(there.uri, "trainings", [here], print):
        EpochLog(here / "epochs.jsonl").append(1, {"loss": 0.5})
        raise ArithmeticError("nonfinite:loss@2")
    with pytest.raises(OSError), sending.Sending(there.uri, "trainings", [here], print):
        EpochLog(here / "epochs.jsonl").append(2, {"loss": 0.5})
        raise OSError("the machine is not well")
    there.pull("trainings/here", tmp_path / "driver")
    assert list(EpochLog(tmp_path / "driver" / "epochs.jsonl").read()) == [1]
