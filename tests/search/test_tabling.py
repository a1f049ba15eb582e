"""A report can be made of a study that runs: its tables are written on the way."""

import threading
from pathlib import Path
from typing import Any

import pytest

from absld_search.core import results
from absld_search.search import background, tabling, wire
from absld_search.search.searcher import LedgerSearcher
from absld_search.search.tabling import Tabling
from analysis import report
from tests.search.requests import plan, pretend
from tests.search.test_queue import open_queue


def open_study(out: Path) -> tuple[Tabling, LedgerSearcher, Path]:
    made = plan(out)
    queue = open_queue(made)
    watching = Tabling(made, queue.ledger, pytest.fail)
    return watching, LedgerSearcher(queue, watching, print), made.folder


def next_one(searcher: LedgerSearcher, watching: Tabling, number: int) -> dict[str, Any]:
    found = searcher.suggest(str(number))
    assert isinstance(found, dict) and watching.background.drain(60.0)
    return wire.unpacked(found)


def test_a_study_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    watching, searcher, folder = open_study(tmp_path)
    next_one(searcher, watching, 0)
    found = report.write(folder)
    assert "This study is not finished" in " ".join(found.notices)
    assert 'class="notice"' in (folder / "report" / "index.html").read_text()


@pytest.mark.parametrize(("pause", "expected"), [(0.0, [1, 2, 3]), (1e6, [1, 1, 1])])
def test_the_tables_follow_but_not_at_every_trial(
    pause: float, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabling, "SHARE", 0)
    monkeypatch.setattr(tabling, "PAUSE_SECONDS", pause)
    watching, searcher, folder = open_study(tmp_path)
    written = []
    for number in range(3):
        found = next_one(searcher, watching, number)
        final = pretend(found["job"])
        searcher.on_trial_complete(str(number), wire.packed(final=final, epochs=2, seconds=0.0))
        assert watching.background.drain(60.0)
        written.append(results.read(folder, "trials").num_rows)
    assert written == expected
    watching.close()


def test_nobody_writes_tables_any_more_once_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver writes them next; a large study's take longer than anybody waits for a server."""
    began, gate, order = threading.Event(), threading.Event(), list[str]()

    def slow(*_: Any) -> None:
        began.set()
        gate.wait()
        order.append("written")

    monkeypatch.setattr(background, "PATIENCE", 0.05)
    monkeypatch.setattr(tabling.tables, "write", slow)
    watching, searcher, _ = open_study(tmp_path)
    searcher.suggest("0")
    assert began.wait(60.0)
    threading.Timer(2.0, gate.set).start()
    watching.close()
    order.append("closed")
    assert order == ["written", "closed"]
