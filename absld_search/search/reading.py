"""A study's database read by somebody who does not drive it: nothing is created, brought up or kept locked.

SQLite is opened with `mode=ro`, PostgreSQL in read-only transactions. Each look is one short transaction, so a driver
that wants to write waits for milliseconds. Ledgers of older schemas are read as they are.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from absld_search.search import processes
from absld_search.search.database import clock
from absld_search.search.ledger import RUNNING, TOOK, Row, read_facts
from absld_search.search.standing import Standing, standing
from absld_search.words import UsageError, masked

LOCKED_SECONDS = 10  # how long a look waits for a driver that is just committing
TAIL = 65_536  # bytes of an epoch log that hold its last line


@dataclass(frozen=True)
class Look:
    """One look at a study: how it stands, who drives it ("" where nobody does), and the command that goes on."""

    study: str
    driver: str
    standing: Standing
    command: str


def look(folder: Path, storage: str | None = None) -> Look:
    """How the study in `folder` stands. Raises: UsageError where there is none, or none that can be read."""
    facts = _facts(folder)
    url = storage or f"sqlite:///{(folder / 'study.db').absolute()}"
    if storage is None and not (folder / "study.db").is_file():
        raise UsageError(f"there is no study.db in {folder}. Give the study's folder, or its --storage.")
    study = str(facts.get("study", folder.name))
    try:
        with _reading(url) as connection:
            trials, trainings = _rows(connection, "absld_trials", study), _rows(connection, "absld_trainings", study)
            fingerprints = read_facts(connection, study, "fingerprint:")
            took = read_facts(connection, study, TOOK)
            driver = _driver(connection, study)
    except (sa.exc.SQLAlchemyError, ValueError) as error:
        raise UsageError(masked(f"study: its database cannot be read: {str(error).splitlines()[0]}.")) from None
    objectives: dict[str, str] = next((found["objectives"] for found in fingerprints.values()), {})
    epochs = {row["training"]: last_epoch(folder / "trainings" / row["training"]) for row in trainings
              if row["state"] == RUNNING}  # fmt: skip
    how: dict[str, Any] = {"driven": bool(driver), "took": took}
    found = standing(trials, trainings, objectives, facts.get("planned", {}), epochs, **how)
    return Look(study, driver, found, str(facts.get("command", "")))


def last_epoch(folder: Path) -> int:
    """The last epoch in a training's log; 0 where it has ended none."""
    return max((epoch for epoch, _ in _tail(folder)[-1:]), default=0)


def last_heard(folder: Path) -> float:
    """When a training's last epoch ended, in seconds since 1970; 0 where none is known."""
    return max((when for _, when in _tail(folder)), default=0.0)


def epoch_seconds(folder: Path) -> float:
    """What an epoch of a training took: the median of the times between two in its log; 0 where it has no two."""
    when = [when for _, when in _tail(folder)]
    gaps = [after - before for before, after in itertools.pairwise(when)]
    return max(0.0, statistics.median(gaps)) if gaps else 0.0


def _tail(folder: Path) -> list[tuple[int, float]]:
    """(epoch, when it was logged in seconds since 1970) of the last lines of a training's log."""
    try:
        with open(folder / "epochs.jsonl", "rb") as handle:
            handle.seek(max(0, handle.seek(0, 2) - TAIL))
            lines = handle.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            record = json.loads(line)
            found.append((int(record["epoch"]), record.get("time", 0) / 1000))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # cut off at the front, or torn by a kill
    return found


def _facts(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}. A study's folder is OUT/NAME of the command that made it.")
    try:
        return dict(json.loads((folder / "study.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # an older program writes it at the end


@contextmanager
def _reading(url: str) -> Iterator[sa.Connection]:
    if url.startswith("sqlite"):
        path = quote(str(sa.make_url(url).database))
        engine = sa.create_engine("sqlite://", creator=lambda: _open(path), poolclass=sa.NullPool)
    else:
        engine = sa.create_engine(url, poolclass=sa.NullPool, execution_options={"postgresql_readonly": True})
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _open(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=LOCKED_SECONDS)


def _rows(connection: sa.Connection, table: str, study: str) -> list[Row]:
    """Every column that the table has, whatever its schema's version; JSON columns as values."""
    found = connection.execute(sa.text(f"SELECT * FROM {table} WHERE study = :study"), {"study": study}).mappings()
    return [{name: _value(name, value) for name, value in row.items()} for row in found]


def _value(name: str, value: Any) -> Any:
    """SQLite hands JSON out as text, PostgreSQL as what it says."""
    return json.loads(value) if name in ("job", "metrics", "objectives") and isinstance(value, str) else value


def _driver(connection: sa.Connection, study: str) -> str:
    """Who holds the study's lease, where that is somebody alive; "" otherwise."""
    if not sa.inspect(connection).has_table("absld_leases"):
        return ""
    query = sa.text("SELECT * FROM absld_leases WHERE study = :study")
    row = connection.execute(query, {"study": study}).mappings().first()
    if row is None or not _lives(dict(row), clock(connection)):
        return ""
    return f"process {row['pid']} on {row['name']}"


def _lives(row: Mapping[str, Any], now: float) -> bool:
    if row["host"] == processes.host():
        return processes.started(row["pid"]) == row["started"]
    return bool(row["expires"] > now)
