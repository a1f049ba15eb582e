"""How a run ends before its time, in processes whose main thread does not listen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from absld_search.search import interruption
from absld_search.search.interruption import Interruption
from tests.faults.rounds import ended, fork


def deaf(note: Path, prepare: Callable[[Interruption], None] = lambda stop: None) -> Callable[[], None]:
    """A run that swallows every interruption and goes on."""

    def work() -> None:
        with Interruption(lambda: note.with_name("cleaned").touch()) as stop:
            prepare(stop)
            note.touch()
            while True:
                with suppress(KeyboardInterrupt):
                    time.sleep(60)

    return work


def until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_ctrl_c_twice_ends_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    note = tmp_path / "ready"
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does to what it starts in the background
    pid = fork(deaf(note))
    signal.signal(signal.SIGINT, ignored)
    until(note)
    os.kill(pid, signal.SIGINT)
    said = ""
    while interruption.STOPPING not in said:
        said += capfd.readouterr().err
    os.kill(pid, signal.SIGINT)
    assert ended(pid) == 130 and (tmp_path / "cleaned").exists()
    assert "Run the same command again to continue." in capfd.readouterr().err


def test_a_sigterm_that_nobody_heeds_is_75(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE", {signal.SIGTERM: 0.2})
    note = tmp_path / "ready"
    pid = fork(deaf(note))
    until(note)
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 75 and (tmp_path / "cleaned").exists()


def test_a_guard_ends_it_with_its_own_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pid = fork(deaf(tmp_path / "ready", lambda stop: stop.guards.append(lambda: "Ray's raylet has died.")))
    assert ended(pid) == 75 and "Ray's raylet has died. Run the same" in capfd.readouterr().err


def test_a_signal_that_ends_ray_too_is_an_interruption_and_our_line_the_last(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As SIGTERM to the whole process group does: Ray's processes complain while they go."""

    def with_ray(stop: Interruption) -> None:
        stop.clean_up = lambda: os.write(2, b"raylet: Broken pipe\n")
        stop.guards.append(lambda: "Ray's raylet has died." if stop.deadline < float("inf") else "")

    note = tmp_path / "ready"
    pid = fork(deaf(note, with_ray))
    until(note)
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 75
    said = capfd.readouterr().err
    assert "has died" not in said and "raylet: Broken pipe" in said
    assert said.splitlines()[-1] == "interrupted, and Ray with it. Run the same command again to continue."


def test_cleaning_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "CLEANING", 0.2)

    def hanging(stop: Interruption) -> None:
        stop.clean_up = lambda: time.sleep(600)
        stop.guards.append(lambda: "gone.")

    assert ended(fork(deaf(tmp_path / "ready", hanging))) == 75


def test_what_listens_ends_as_it_likes_and_the_handlers_are_put_back() -> None:
    def work() -> None:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        cleaned: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            with Interruption(lambda: cleaned.append(1)):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before and not cleaned

    assert ended(fork(work)) == 0  # not in this process, which would be ended after the grace that it is given
