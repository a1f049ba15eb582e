"""What a cluster of real nodes places, queues and refuses. Its GPUs are numbers that Ray was told: nobody computes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from absld_search.search import study as studies
from absld_search.search.ray_session import ray_session
from benchmarks import simulate
from benchmarks.scaling import SPACE, Silent
from tests.cluster.nodes import Nodes, nodes
from tests.search.requests import plan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A node of eight cores and one GPU."""
    with nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        cluster.head(cpus=8, gpus=1)
        yield cluster


def together(job: dict[str, Any], place: str, wanted: int, **_: Any) -> dict[str, Any]:
    """A training that waits, for a minute at most, until `wanted` are there, and notes how many there ever were."""
    here = Path(place) / f"here.{job['training']}"
    here.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    most, deadline = 0, time.monotonic() + 60
    wanted = 1 if job["job"]["test"] else wanted  # the confirming one comes alone
    while most < wanted and time.monotonic() < deadline:
        most = max(most, len(list(Path(place).glob("here.*"))))
        time.sleep(0.05)
    (Path(place) / f"most.{job['training']}").write_text(f"{most} {here.read_text()}")
    here.unlink()
    return {"final": simulate.pretend(job["job"]), "epochs": 1, "seconds": 0.0}


def counted(one: Nodes, folder: Path, monkeypatch: pytest.MonkeyPatch, trials: int, share: float, wanted: int) -> Any:
    """[how many trainings each saw at its side, on which GPU], of a study in that cluster."""
    for name, value in one.environment.items():
        monkeypatch.setenv(name, value)
    (folder / "place").mkdir()
    words = {"trials": trials, "seeds": 1, "gpus_per_trial": share, "address": one.address, "device": "cpu"}
    # A process of its own: Ray reads the token when it is first imported.
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(folder, words, wanted))
    driver.start()
    driver.join()
    assert driver.exitcode == 0
    return [path.read_text().split() for path in (folder / "place").glob("most.*")]


def drive(folder: Path, words: dict[str, Any], wanted: int) -> None:
    """The study, to its end."""
    made = plan(folder, SPACE, **words)
    studies.train = partial(together, place=str(folder / "place"), wanted=wanted)
    with studies.held(made) as study:
        study.mirroring = Silent()  # type: ignore[assignment]
        study.inputs.data()
        with ray_session(made, study.lease.token, study.stop):
            study._tune()
        assert {row["state"] for row in study.ledger.trainings()} == {"COMPLETE"}


def test_four_quarters_of_a_gpu_train_together(one: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(one, tmp_path, monkeypatch, trials=4, share=0.25, wanted=4)
    assert sorted(found)[-4:] == [["4", "0"]] * 4, "four at the one GPU; the confirming one comes alone"


def test_eight_whole_gpus_of_one_wait_for_each_other(
    one: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = counted(one, tmp_path, monkeypatch, trials=8, share=1.0, wanted=1)
    assert found == [["1", "0"]] * 9


def test_more_gpus_than_there_are_is_refused_before_anything_is_made(one: Nodes, tmp_path: Path) -> None:
    words = ["ablation_dual_temps", "--smoke", "--gpus-per-trial", "2", "--address", one.address, "--out", "new"]
    found = subprocess.run(
        [sys.executable, "-m", "absld_search.run", *words, "--device", "cpu"], cwd=tmp_path, text=True,
        capture_output=True, env=one.environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert found.returncode == 2, found.stderr
    assert "2 processes with 0.5 CPUs and 1 GPUs each does not fit: Ray sees 1 node (8 CPUs, 1 GPU)" in found.stderr
    assert not (tmp_path / "new").exists()
