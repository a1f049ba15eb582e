"""Work in the background: done once where it succeeds, repeated where it does not, and never waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from absld_search.search import background
from absld_search.search.background import Background

LONG = 60.0  # what no test comes near


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.01)
    made = Background(lambda error: None, lambda: None)
    yield made
    made.stop()


def test_what_is_asked_many_times_while_it_waits_is_done_once_and_then_the_newest(work: Background) -> None:
    gate, done = threading.Event(), []
    work.ask("first", gate.wait)
    for number in range(100):
        work.ask("second", lambda number=number: done.append(number))
    gate.set()
    assert work.drain(LONG)
    assert done == [99]


def test_what_is_asked_while_it_runs_is_done_again(work: Background) -> None:
    """It may have read the ledger before the change that it was asked for."""
    began, gate, done = threading.Event(), threading.Event(), []

    def first() -> None:
        began.set()
        gate.wait()
        done.append("first")

    work.ask("key", first)
    assert began.wait(LONG)
    work.ask("key", lambda: done.append("second"))
    gate.set()
    assert work.drain(LONG)
    assert done == ["first", "second"]


def test_a_failure_is_repeated_until_it_succeeds_and_stops_nobody_else(work: Background) -> None:
    left, done, heard, empty = [3], list[str](), list[Exception](), threading.Event()
    work.failed, work.empty = heard.append, empty.set

    def failing() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("away")
        done.append("failing")

    work.ask("failing", failing)
    work.ask("other", lambda: done.append("other"))
    assert empty.wait(LONG)
    assert done == ["other", "failing"] and [str(error) for error in heard] == ["away"] * 3


def test_a_drain_gives_up_where_nothing_succeeds_and_where_nothing_answers(
    work: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OSError("away")

    for key in "abcdef":
        work.ask(key, away)
    assert not work.drain(LONG)
    assert isinstance(work.wait("a", 0), OSError)
    never = threading.Event()
    hanging = Background(lambda error: None, lambda: None)
    hanging.ask("hangs", never.wait)
    monkeypatch.setattr(background, "PATIENCE", 0.05)
    assert not hanging.drain(LONG)
    never.set()
    hanging.stop()


def test_a_drain_with_one_that_always_fails_still_does_the_others(work: Background) -> None:
    def refused() -> None:
        raise ValueError("never")

    done: list[str] = []
    work.ask("bad", refused)
    for key in "abc":
        work.ask(key, lambda key=key: done.append(key))
    assert not work.drain(LONG)
    assert done == ["a", "b", "c"]


def test_nothing_is_begun_after_a_stop(work: Background) -> None:
    done: list[int] = []
    work.ask("a", lambda: done.append(1))
    assert work.drain(LONG)
    work.stop()
    work.ask("b", lambda: done.append(2))
    assert not work.drain(0.2)
    assert done == [1]
