"""A training in several processes, as Ray starts them: real processes, gloo, and what each does when the other dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from absld_search.search import followers, processes, worker
from absld_search.search.followers import group_of
from absld_search.search.interruption import Interruption
from absld_search.search.ray_session import ray_session
from tests.search.requests import plan
from tests.search.test_queue import open_queue

TOKEN = "followers-test"
TWO = [{"CPU": 0.5, "GPU": 0.0}] * 2
PATIENCE = 120.0  # seconds; what is waited for comes in a few


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    made = plan(tmp_path_factory.mktemp("session"))
    with Interruption(lambda: None) as stop, ray_session(made, TOKEN, stop):
        yield


def following() -> list[int]:
    """Process ids of the followers that are at work."""
    found = []
    for pid in processes.marked(TOKEN):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            continue
        found += [pid] if "_follow" in command else []
    return found


def until(there: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := there()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def trained(out: Path) -> dict[str, Any]:
    """What the worker reports of one training in two processes."""
    (row, *_) = open_queue(plan(out)).ledger.trainings() or [open_queue(plan(out)).take()]
    return worker.train(row, str(out / "trainings"), {"data": "", "teachers": ""}, bundles=TWO)


def test_two_train_together_and_one_that_dies_loses_the_training_but_not_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABSLD_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(worker.tune, "report", lambda said: [os.kill(pid, signal.SIGKILL) for pid in following()])
    found = trained(tmp_path)
    assert found.get("lost", "").startswith("ConnectionError: process 1 of the training has ended: "), found
    epochs: list[int] = []
    monkeypatch.setattr(worker.Reports, "__call__", lambda self, epoch, metrics: epochs.append(epoch))
    found = trained(tmp_path)
    assert "final" in found and epochs and 1 not in epochs, "it goes on from its checkpoint"
    assert not list((tmp_path / "trainings").glob("meeting-*")) and until(lambda: not following())


def lead(folder: Path, job: dict[str, Any], grace: float) -> None:
    """The first process of a training that hears nothing of the other: it waits, and would for ever."""
    followers.GRACE_SECONDS = grace
    with group_of(job, folder, TWO):
        (folder / "leader").write_text(str(os.getpid()))
        time.sleep(3600)


def led(folder: Path, job: dict[str, Any], grace: float = 3600) -> ray.ObjectRef:
    return ray.remote(num_cpus=0.1, max_retries=0)(lead).remote(folder, job, grace)


def test_the_first_process_ends_where_one_has_never_come(tmp_path: Path) -> None:
    """A job that no process can read, so that the other one ends before they meet."""
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(led(tmp_path, {}, grace=0), timeout=PATIENCE)


def test_the_others_end_with_the_first(tmp_path: Path) -> None:
    row = open_queue(plan(tmp_path)).take()
    assert row is not None
    task = led(tmp_path, {**row["job"], "folders": {"data": "", "teachers": ""}})
    until(following)
    os.kill(int(until((tmp_path / "leader").read_text)), signal.SIGKILL)
    assert until(lambda: not following())
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(task, timeout=PATIENCE)


def test_one_process_needs_no_group_and_no_ray(tmp_path: Path) -> None:
    with group_of({}, tmp_path / "none", TWO[:1]) as group:
        assert group is None and not (tmp_path / "none").exists()
