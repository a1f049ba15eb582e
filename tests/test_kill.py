"""SIGKILL of the real driver in the middle of a real study, then the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from absld_search.core import results
from absld_search.search import reading

ROOT = Path(__file__).parents[1]
STUDY = "temperature_lr-digits-smoke"
EPOCHS = 40
WORDS = ["temperature_lr", "--smoke", "--trials", "3", "--seeds", "2", "--set", f"epochs={EPOCHS}"]


def start(out: Path, **more: str) -> subprocess.Popen[str]:
    # A checkpoint after every epoch: then losing more than the epoch in progress can be counted, not timed.
    environment = {**os.environ, "ABSLD_CHECKPOINT_SECONDS": "0", "ABSLD_TEST_MARK": str(out), **more}
    line = [sys.executable, "-m", "absld_search.run", *WORDS, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload]


def lines(out: Path) -> dict[str, list[int]]:
    """{training: epochs in the order in which they were trained}."""
    found = {}
    for log in out.glob("*/trainings/*/epochs.jsonl"):
        records = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}}")]
        found[log.parent.name] = [record["epoch"] for record in records]
    return found


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None) -> None:
    """Returns when the condition holds, or the process has ended."""
    for _ in range(6000):  # a busy machine is no failure
        if condition() or (process and process.poll() is not None):
            return
        time.sleep(0.1)
    raise AssertionError("the study does not get on")


@pytest.mark.slow
def test_kill_the_driver_twice(tmp_path: Path) -> None:
    for finished in (0, 2):  # in the middle of the first trainings, then in the middle of later ones
        process = start(tmp_path)
        wait_for(lambda finished=finished: len(running(tmp_path)) > 0 and done(tmp_path) >= finished, process)
        assert process.poll() is None, process.communicate()[0]
        assert_seen_from_elsewhere(tmp_path, process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert reading.look(tmp_path / STUDY).driver == "", "its lease has not run out, but its process is dead"
    process = start(tmp_path)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    study = tmp_path / STUDY
    tables = results.load(study)
    assert set(tables.trainings["state"].to_pylist()) == {"COMPLETE"}
    assert len(tables.trials) == 3 + 1 and len(tables.trainings) == 4 + 4
    assert "worst class" in output
    for arm, number in (("adaptive", 3), ("frozen", 1)):
        stored = optuna.load_study(study_name=f"{study.name}.{arm}", storage=f"sqlite:///{study / 'study.db'}")
        states = Counter(trial.state.name for trial in stored.get_trials())
        assert states["COMPLETE"] == number and states["RUNNING"] == 0
    for training, epochs in lines(tmp_path).items():
        counts = Counter(epochs)
        assert set(counts) == set(range(1, EPOCHS + 1)), training
        # The last epoch is logged once more when its evaluation is added; a kill may repeat one epoch each time.
        assert sum(counts.values()) <= EPOCHS + 1 + 2, (training, counts)
    assert_nothing_left_running(tmp_path)


def assert_seen_from_elsewhere(out: Path, pid: int) -> None:
    """`status` of a study whose driver runs, as from another terminal."""
    seen = reading.look(out / STUDY)
    assert seen.driver.startswith(f"process {pid} on ") and seen.standing.running
    assert seen.standing.done <= done(out) and seen.standing.total == 3 + 1 + 2 * 2


def done(out: Path) -> int:
    return len(list(out.glob("*/trainings/*/result.json")))


def running(out: Path) -> list[str]:
    """Trainings that are well under way."""
    found = {key: epochs for key, epochs in lines(out).items() if 5 < len(epochs) < EPOCHS - 10}
    return [key for key in found if not list(out.glob(f"*/trainings/{key}/result.json"))]


def assert_nothing_left_running(out: Path) -> None:
    """Every process of a driver, Ray's own included, inherits the mark in its environment."""
    wait_for(lambda: not marked(out), None)


def marked(out: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"ABSLD_TEST_MARK={out}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["teacher", "search"])
def test_a_polite_end_is_75_and_leaves_nothing_behind(tmp_path: Path, number: int, when: str) -> None:
    process = start(tmp_path, ABSLD_CACHE_DIR=str(tmp_path / "cache"))
    if when == "teacher":
        wait_for(lambda: list(tmp_path.glob("cache/teachers/*.lock")), process)
    else:
        wait_for(lambda: running(tmp_path), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 75, output
    assert "run the same command again" in output and "Traceback" not in output
    assert_nothing_left_running(tmp_path)
    assert not list(tmp_path.glob("*/driver.json"))
