"""Who drives a study: one driver, by a lock on its folder and a lease in its database.

The lock costs nothing and goes with its process, but only where two drivers see one folder. The lease holds wherever
they see one database: it is renewed every 15 s by the database's clock and runs out after 60 s. On the same host a
holder that has died is succeeded at once, since its pid and start time tell; elsewhere once its lease has run out and
a watch by our own monotonic clock has seen no renewal, so that a clock set back or forward can neither end a live
driver's lease nor keep a dead one's for ever.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from absld_search.core import faults, results
from absld_search.core.files import sweep
from absld_search.search import processes
from absld_search.search.database import clock, connect, one_of_us_does

LEASE_SECONDS, RENEW_SECONDS = 60.0, 15.0
WATCH_SECONDS = RENEW_SECONDS + 5  # how long a lease from elsewhere must stand still to count as abandoned
HELD = 4  # exit code of a driver that found another

_metadata = sa.MetaData()
_leases = sa.Table(
    "absld_leases",
    _metadata,
    sa.Column("study", sa.String, primary_key=True),
    sa.Column("token", sa.String, nullable=False),  # of this start of this driver
    sa.Column("host", sa.String, nullable=False),  # within which a pid means something
    sa.Column("name", sa.String, nullable=False),  # of the host, for people
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.String, nullable=False),  # the process: a pid may be used again
    sa.Column("since", sa.Float, nullable=False),  # by the database's clock, like `expires`
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("renewals", sa.Integer, nullable=False),
)


class Held(RuntimeError):
    """Another driver holds the study."""


class LeaseLost(RuntimeError):
    """The lease is another's now, or may be: nothing more may be written."""


class Lease:
    """This driver's claim to a study, in a database. Acquire it, keep it, release it."""

    def __init__(self, url: str, study: str) -> None:
        self.url, self.study, self.token = url, study, uuid.uuid4().hex
        self.lost = ""  # why, once it is
        self.engine = connect(url)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Raises: Held, naming the holder."""
        one_of_us_does(lambda: _metadata.create_all(self.engine))
        there = self._row()
        if there is not None and not self._abandoned(there):
            raise Held(_said(self.study, there))
        if not self._claim(there):
            raise Held(_said(self.study, self._row() or {}))
        if there is not None and there["host"] == processes.host():
            processes.kill_marked(there["token"])  # its Ray lingers for a minute, its workers hold trainings' locks

    def keep(self, on_lost: Callable[[], None]) -> None:
        """Renew it from a thread until it is released; `on_lost` hears, in that thread, when that has failed."""
        self._thread = threading.Thread(target=self._renew_for_ever, args=(on_lost,), daemon=True, name="lease")
        self._thread.start()

    def release(self) -> None:
        """Whoever comes next need not wait. Harmless where it is lost or was never had."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        with suppress(sa.exc.SQLAlchemyError), self.engine.begin() as connection:
            connection.execute(_leases.delete().where(self._mine()))
        self.engine.dispose()

    def fence(self, connection: sa.Connection) -> None:
        """Call it last in a transaction that writes: it passes only if the study is still ours. Raises: LeaseLost."""
        held = sa.select(_leases.c.token).where(self._mine()).with_for_update()
        if self.lost or connection.execute(held).first() is None:
            self.lost = self.lost or f"study {self.study!r} has been taken over by another driver"
            raise LeaseLost(self.lost)

    def renew(self) -> bool:
        """Another 60 s; False where the lease is not ours any more."""
        faults.at("lease.before_renewal")
        with self.engine.begin() as connection:
            values = {"expires": clock(connection) + LEASE_SECONDS, "renewals": _leases.c.renewals + 1}
            return connection.execute(_leases.update().where(self._mine()).values(values)).rowcount == 1

    def _renew_for_ever(self, on_lost: Callable[[], None]) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(RENEW_SECONDS):
            try:
                if self.renew():
                    renewed = time.monotonic()
                    continue
                self.lost = f"study {self.study!r} has been taken over by another driver"
            except Exception as error:  # the database is away, or its disk is full: there is time for another try
                if time.monotonic() - renewed < LEASE_SECONDS - RENEW_SECONDS:
                    continue
                self.lost = f"the lease of study {self.study!r} could not be renewed: {type(error).__name__}"
            return None if self._ended.is_set() else on_lost()

    def _mine(self) -> Any:
        return (_leases.c.study == self.study) & (_leases.c.token == self.token)

    def _row(self) -> dict[str, Any] | None:
        """Whose lease it is, and how old it is by the database's clock."""
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(_leases).where(_leases.c.study == self.study)).mappings().first()
            return None if row is None else {**row, "now": clock(connection)}

    def _abandoned(self, row: Mapping[str, Any]) -> bool:
        if row["host"] == processes.host():
            return processes.started(row["pid"]) != row["started"]
        # More left than a lease lasts: the clock has been set back since, so it says nothing.
        if 0 <= row["expires"] - row["now"] <= LEASE_SECONDS:
            return False
        self._ended.wait(WATCH_SECONDS)
        after = self._row()
        return after is None or (after["token"], after["renewals"]) == (row["token"], row["renewals"])

    def _claim(self, there: Mapping[str, Any] | None) -> bool:
        """Put our name where nobody's, or the abandoned holder's, still stands; False where somebody was faster."""
        pid = os.getpid()
        mine: dict[str, Any] = {"study": self.study, "token": self.token, "host": processes.host()}
        mine |= {"name": socket.gethostname(), "pid": pid, "started": processes.started(pid) or "", "renewals": 0}
        with suppress(sa.exc.IntegrityError), self.engine.begin() as connection:
            now = clock(connection)
            values = {**mine, "since": now, "expires": now + LEASE_SECONDS}
            if there is None:
                connection.execute(_leases.insert().values(values))  # its rowcount means nothing on PostgreSQL
                return True
            same = (_leases.c.token == there["token"]) & (_leases.c.renewals == there["renewals"])
            query = _leases.update().where(_leases.c.study == self.study, same).values(values)
            return connection.execute(query).rowcount == 1
        return False


@contextmanager
def held(url: str, study: str, folder: Path, on_lost: Callable[[], None]) -> Iterator[Lease]:
    """The study, for this driver alone. Raises: Held, naming who has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    note = folder / "driver.json"
    with _locked(folder, study, note):
        sweep(folder)
        sweep(folder / "results")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        results.write_json(note, {"pid": os.getpid(), "host": socket.gethostname(), "since": now})
        lease = Lease(url, study)
        try:
            lease.acquire()
            lease.keep(on_lost)
            yield lease
        finally:
            lease.release()
            note.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path, study: str, note: Path) -> Iterator[None]:
    lock = FileLock(folder / "driver.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        time.sleep(0 if note.exists() else 1)  # the holder may be about to sign
        raise Held(_said(study, _read(note))) from None
    try:
        yield
    finally:
        lock.release()


def _read(note: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        signed = json.loads(note.read_text())
        return {"pid": signed["pid"], "name": signed["host"], "since": signed.get("since")}
    return {}


def _said(study: str, row: Mapping[str, Any]) -> str:
    if not row:
        return f"study {study!r} is held by another driver; nobody knows which."
    since = row["since"]
    if isinstance(since, float):
        since = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return f"study {study!r} is held by process {row['pid']} on {row['name']}" + (f", since {since}." if since else ".")
