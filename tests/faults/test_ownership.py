"""The lease: one driver, whatever the clocks say, on every database that a study can lie in."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from absld_search.core import faults
from absld_search.search import database, ownership, processes
from absld_search.search.ledger import Ledger
from absld_search.search.ownership import Held, Lease, LeaseLost
from tests.faults import fake


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database; PostgreSQL where its server is installed."""
    if request.param == "sqlite":
        yield database.sqlite_url(tmp_path / "study.db")
        return
    server = request.getfixturevalue("postgresql")
    yield server
    with database.connect(server).begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS absld_leases, absld_facts, absld_trials, absld_trainings"))


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "WATCH_SECONDS", 0.5)


def change(lease: Lease, **values: Any) -> None:
    with lease.engine.begin() as connection:
        connection.execute(ownership._leases.update().values(values))


def held_by(url: str, study: str = "study", **values: Any) -> Lease:
    lease = Lease(url, study)
    lease.acquire()
    if values:
        change(lease, **values)
    return lease


def test_a_second_driver_is_told_who_since_when(url: str) -> None:
    held_by(url, name="elsewhere")
    with pytest.raises(Held, match=rf"held by process {os.getpid()} on elsewhere, since 20\d\d-"):
        Lease(url, "study").acquire()


def test_two_studies_in_one_database_have_two_leases(url: str) -> None:
    held_by(url, "one")
    held_by(url, "two")
    with pytest.raises(Held, match="'two'"):
        Lease(url, "two").acquire()


def test_released_means_free(url: str) -> None:
    held_by(url).release()
    held_by(url).release()


def test_a_dead_holder_on_this_host_is_succeeded_at_once(url: str) -> None:
    code = f"from absld_search.search.ownership import Lease; Lease({url!r}, 'study').acquire()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    held_by(url).release()


def test_a_pid_that_is_used_again_is_no_holder(url: str) -> None:
    held_by(url, started="1")  # our own pid, of a process that began at another time
    held_by(url).release()


def test_a_zombie_is_no_holder() -> None:
    child = subprocess.Popen(["true"])
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert processes.started(child.pid) is None
    child.wait()


def test_elsewhere_a_lease_holds_until_it_has_run_out(url: str, no_patience: None) -> None:
    first = held_by(url, host="another/pid:[1]")
    with pytest.raises(Held):
        Lease(url, "study").acquire()
    change(first, expires=0.0)
    held_by(url).release()


@pytest.mark.parametrize("shift", [-3600.0, 86400.0])
def test_a_clock_that_was_set_ends_no_lease_and_keeps_no_dead_one(
    url: str, shift: float, no_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1: an hour back, a day forward."""
    living = held_by(url, host="another/pid:[1]")
    clocks = {name: f"({text}) + ({shift})" for name, text in database.CLOCKS.items()}
    monkeypatch.setattr(database, "CLOCKS", clocks)
    renewing = threading.Thread(target=lambda: [living.renew() for _ in iter(lambda: over.wait(0.1), True)])
    over = threading.Event()
    renewing.start()
    try:
        with pytest.raises(Held):
            Lease(url, "study").acquire()
    finally:
        over.set()
        renewing.join()
    monkeypatch.setattr(database, "CLOCKS", {name: f"({text}) + ({shift})" for name, text in clocks.items()})
    held_by(url).release()  # nobody renews it any more


def test_of_many_that_come_at_once_one_gets_it(url: str) -> None:
    held_by(url, started="1")  # abandoned: all of them may take it over
    won, lost, gate = [], [], threading.Barrier(6)

    def come() -> None:
        lease = Lease(url, "study")
        gate.wait()
        try:
            lease.acquire()
            won.append(lease)
        except Held:
            lost.append(lease)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)


def test_who_has_lost_the_lease_hears_of_it_and_writes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "RENEW_SECONDS", 0.05)
    heard = threading.Event()
    lease = held_by(url)
    ledger = Ledger(url, "study", lease.fence)
    ledger.fact("before", 1)
    lease.keep(heard.set)
    change(lease, token="another")
    with pytest.raises(LeaseLost, match="taken over"):
        ledger.fact("after", 1)
    assert ledger.known("before") == 1 and ledger.known("after") is None, "the transaction was rolled back"
    assert heard.wait(30) and "taken over" in lease.lost
    lease.release()
    with pytest.raises(Held):
        Lease(url, "study").acquire()  # what is another's was not released


def test_a_database_that_stays_away_is_a_lost_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(ownership, "LEASE_SECONDS", 0.3)
    heard = threading.Event()
    lease = held_by(database.sqlite_url(tmp_path / "study.db"))
    faults.arm("lease.before_renewal:1+:enospc")
    try:
        lease.keep(heard.set)
        assert heard.wait(30) and "could not be renewed" in lease.lost
    finally:
        faults.arm("")
    lease.release()


def test_what_a_dead_driver_had_started_is_ended(tmp_path: Path) -> None:
    url = database.sqlite_url(tmp_path / "study.db")
    left = held_by(url, started="1")
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, processes.MARK: left.token})
    held_by(url).release()
    assert child.wait(timeout=60) == -9


def test_every_orderly_end_releases(tmp_path: Path) -> None:
    made = fake.study(tmp_path)
    for error in (None, KeyboardInterrupt, ValueError):
        with pytest.raises(error) if error else pytest.MonkeyPatch.context():
            with ownership.held(made.request.storage, "study", made.folder, lambda: None):
                assert fake.holder(made.folder)["pid"] == os.getpid()
                if error:
                    raise error
        assert not (made.folder / "driver.json").exists()
    with database.connect(made.request.storage).connect() as connection:
        assert connection.execute(sa.select(ownership._leases)).all() == []
