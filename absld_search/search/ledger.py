"""The one truth of a study: trials and trainings, their states, reasons and values, in its database.

A trial is a configuration in an arm; a training is a configuration at a seed. Optuna's studies lie in the
same database, but a finished Optuna trial can't be changed any more, so the whole story is told here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import sqlalchemy as sa

from absld_search.core import faults
from absld_search.search.database import connect, one_of_us_does, sqlite_url
from absld_search.words import UsageError

__all__ = ["Ledger", "connect", "sqlite_url"]
SCHEMA_VERSION = "2"  # 2: trainings count their losses, drivers have leases
WAITING, RUNNING, COMPLETE, FAILED = "WAITING", "RUNNING", "COMPLETE", "FAILED"
STOPPED, INFEASIBLE = "STOPPED", "INFEASIBLE"  # of trials: not trained to the end; a constraint is broken
FINAL = (COMPLETE, FAILED, STOPPED, INFEASIBLE)
TOOK = "took:"  # before a training that was taken over: the seconds that it took where it was trained
BEGAN = "began:"  # before a training: when its last attempt began, in seconds since 1970

_metadata = sa.MetaData()
_facts = sa.Table(
    "absld_facts",
    _metadata,
    sa.Column("study", sa.String, primary_key=True),  # one PostgreSQL database may hold many
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
_trials = sa.Table(
    "absld_trials",
    _metadata,
    sa.Column("study", sa.String, primary_key=True),  # one PostgreSQL database may hold many
    sa.Column("trial", sa.String, primary_key=True),  # arm-003
    sa.Column("arm", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # in the arm's Optuna study
    sa.Column("config", sa.String, nullable=False),  # hash
    sa.Column("words", sa.JSON, nullable=False),  # everything settled: fixed, arm, sampled
    sa.Column("params", sa.JSON, nullable=False),  # what was sampled
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False, default=""),
    sa.Column("objectives", sa.JSON),  # means over the seeds
    sa.Column("confirmed", sa.Boolean, nullable=False, default=False),  # its arm's choice at some time
    sa.Index("absld_trials_by_config", "study", "config"),
)
_trainings = sa.Table(
    "absld_trainings",
    _metadata,
    sa.Column("study", sa.String, primary_key=True),  # one PostgreSQL database may hold many
    sa.Column("training", sa.String, primary_key=True),  # hash-s0
    sa.Column("config", sa.String, nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("stage", sa.String, nullable=False),  # search or confirm
    sa.Column("job", sa.JSON, nullable=False),  # the whole TrialConfig
    sa.Column("position", sa.Integer, nullable=False),  # the queue's order
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("losses", sa.Integer, nullable=False, default=0, server_default="0"),  # attempts the machine ended
    sa.Column("epochs", sa.Integer, nullable=False, default=0),
    sa.Column("seconds", sa.Float),
    sa.Column("metrics", sa.JSON),
    # Each question that is asked once a trial has an index, or a thousandth costs half as much again as a first.
    sa.Index("absld_trainings_by_state", "study", "state", "position"),
    sa.Index("absld_trainings_by_config", "study", "config", "position"),
    sa.Index("absld_trainings_by_position", "study", "position"),
    sa.Index("absld_trainings_by_stage", "study", "stage"),
)
Row = dict[str, Any]


@cache
def _equal(table: sa.Table, names: tuple[str, ...], order: tuple[Any, ...]) -> sa.Select[Any]:
    """The rows of a study whose columns `names` equal the values of those names. Built once: to put a query together
    costs as much as to run it."""
    return sa.select(table).where(*(table.c[name] == sa.bindparam(name) for name in ("study", *names))).order_by(*order)


def as_json(value: Any) -> Any:
    """`value` as it will be when it has been stored and read back (tuples are lists then)."""
    return json.loads(json.dumps(value))


def read_fact(connection: sa.Connection, study: str, key: str) -> Any | None:
    """A study's fact, None where it has none."""
    query = sa.select(_facts.c.value).where(_facts.c.study == study, _facts.c.key == key)
    found = connection.execute(query).scalar()
    return None if found is None else json.loads(found)


def read_facts(connection: sa.Connection, study: str, prefix: str) -> dict[str, Any]:
    """A study's facts whose key starts with `prefix`, without it."""
    query = sa.select(_facts.c.key, _facts.c.value).where(_facts.c.study == study, _facts.c.key.startswith(prefix))
    return {key.removeprefix(prefix): json.loads(value) for key, value in connection.execute(query)}


class NewerSchema(UsageError):
    """A newer program made the study."""


def older(found: str) -> bool:
    """Whether a schema version is one that is brought up when the study is opened."""
    return int(found) < int(SCHEMA_VERSION)


def check_version(found: str | None) -> None:
    """Raises: NewerSchema; an older program's study is brought up when it is opened."""
    if found is not None and int(found) > int(SCHEMA_VERSION):
        raise NewerSchema(
            f"study: its database has schema version {found}, this program knows {SCHEMA_VERSION} and older. "
            "A newer absld_search made it: use that one, or give another name with --study."
        )


class Ledger:
    """All reading and writing of the study's own tables. Every method is one transaction."""

    def __init__(self, url: str, study: str, fence: Callable[[sa.Connection], None] = lambda _: None) -> None:
        """`fence` is asked before every commit, in its transaction, and raises where the study is not ours any more."""
        self.url, self.study, self.engine, self.fence = url, study, connect(url), fence
        one_of_us_does(lambda: _metadata.create_all(self.engine))
        check_version(self.known("schema_version"))
        self._bring_up()

    def _bring_up(self) -> None:
        """From any older schema to this one: what it lacks is added, nothing is lost."""
        for index in self._missing_indices():
            one_of_us_does(partial(index.create, self.engine, checkfirst=True))
        columns = {column["name"] for column in sa.inspect(self.engine).get_columns(_trainings.name)}
        if "losses" in columns and self.known("schema_version") == SCHEMA_VERSION:
            return
        with self._writing() as connection:
            if "losses" not in columns:
                added = f"ALTER TABLE {_trainings.name} ADD COLUMN losses INTEGER NOT NULL DEFAULT 0"
                connection.execute(sa.text(added))
            self._note(connection, "schema_version", SCHEMA_VERSION)

    def _missing_indices(self) -> list[sa.Index]:
        """Those that an older program's tables lack."""
        seen = sa.inspect(self.engine)
        there = {index["name"] for table in (_trials, _trainings) for index in seen.get_indexes(table.name)}
        return [index for table in (_trials, _trainings) for index in table.indexes if index.name not in there]

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self.engine.begin() as connection:
            yield connection
            faults.at("ledger.before_commit")
            self.fence(connection)
        faults.at("ledger.after_commit")

    def fact(self, key: str, default: Any) -> Any:
        """The value stored under `key`; the first to ask stores `default` there."""
        found = self.known(key)
        if found is None:
            with self._writing() as connection:
                row = {"study": self.study, "key": key, "value": json.dumps(default)}
                connection.execute(_facts.insert().values(row))
        return as_json(default) if found is None else found

    def note(self, key: str, value: Any) -> None:
        """Store `value` under `key`, whatever stood there."""
        with self._writing() as connection:
            self._note(connection, key, value)

    def _note(self, connection: sa.Connection, key: str, value: Any) -> None:
        row = {"study": self.study, "key": key, "value": json.dumps(value)}
        mine = (_facts.c.study == self.study) & (_facts.c.key == key)
        if not connection.execute(_facts.update().where(mine).values(row)).rowcount:
            connection.execute(_facts.insert().values(row))

    def known(self, key: str) -> Any | None:
        """The value stored under `key`, None where there is none."""
        with self.engine.connect() as connection:
            return read_fact(connection, self.study, key)

    def facts(self, prefix: str) -> dict[str, Any]:
        """Every fact whose key starts with `prefix`, without it."""
        with self.engine.connect() as connection:
            return read_facts(connection, self.study, prefix)

    def add_trial(self, trial: Row, jobs: Iterable[Row]) -> None:
        """A new trial and the trainings it needs, together or not at all; trainings that exist are shared."""
        with self._writing() as connection:
            row = {"study": self.study, "state": WAITING, "reason": "", "confirmed": False, **trial}
            connection.execute(_trials.insert().values(row))
            self._queue(connection, jobs)

    def add_trainings(self, jobs: Iterable[Row]) -> None:
        """Queue trainings; those that exist stay as they are, but one that was the short form of another configuration
        is its own from now on."""
        with self._writing() as connection:
            self._queue(connection, jobs)

    def take(self, leave: Collection[str] = ()) -> Row | None:
        """The next waiting training, now RUNNING and one attempt older; None when none waits but those to `leave`."""
        with self._writing() as connection:
            waiting = _equal(_trainings, ("state",), (_trainings.c.position,)).limit(1)
            others = waiting.where(_trainings.c.training.not_in(list(leave))) if leave else waiting
            row = connection.execute(others, {"study": self.study, "state": WAITING}).mappings().first()
            if row is None:
                return None
            changes = {"state": RUNNING, "attempts": row["attempts"] + 1}
            self._change(connection, _trainings.c.training, row["training"], changes)
            self._note(connection, f"{BEGAN}{row['training']}", time.time())
        return {**row, **changes}

    def forget_waiting(self, stage: str, keep: Iterable[str]) -> None:
        """Take waiting trainings of a stage off the queue, but for those to `keep`."""
        table = _trainings
        with self._writing() as connection:
            mine = (table.c.study == self.study) & (table.c.stage == stage) & (table.c.state == WAITING)
            connection.execute(table.delete().where(mine, table.c.training.not_in(list(keep))))

    def finish_training(self, training: str, **changes: Any) -> None:
        """Its final state, reason, epochs, seconds and metrics."""
        with self._writing() as connection:
            self._change(connection, _trainings.c.training, training, changes)

    def finish_trial(self, trial: str, **changes: Any) -> None:
        """Its state, reason and objectives, or that it was confirmed."""
        with self._writing() as connection:
            self._change(connection, _trials.c.trial, trial, changes)

    def trials(self, **equal: Any) -> list[Row]:
        """Trials whose columns equal what is given, in the order of their numbers."""
        return self._rows(_trials, equal, _trials.c.arm, _trials.c.number)

    def unfinished(self, arm: str) -> int:
        """How many trials of an arm have not ended. Reads none of them: it is asked when any training ends."""
        mine = (_trials.c.study == self.study) & (_trials.c.arm == arm) & _trials.c.state.not_in(FINAL)
        with self.engine.begin() as connection:
            return int(connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one())

    def trainings(self, **equal: Any) -> list[Row]:
        """Trainings whose columns equal what is given, in the queue's order."""
        return self._rows(_trainings, equal, _trainings.c.position)

    def _rows(self, table: sa.Table, equal: Mapping[str, Any], *order: Any) -> list[Row]:
        with self.engine.begin() as connection:
            found = connection.execute(_equal(table, tuple(equal), order), {"study": self.study, **equal}).mappings()
            return [dict(row) for row in found]

    def _change(self, connection: sa.Connection, column: Any, value: str, changes: Row) -> int:
        """Set `changes` in the rows where `column` is `value`; how many there were."""
        query = column.table.update().where(column == value, column.table.c.study == self.study)
        return int(connection.execute(query.values(changes)).rowcount)

    def _queue(self, connection: sa.Connection, jobs: Iterable[Row]) -> None:
        highest = sa.select(sa.func.max(_trainings.c.position)).where(_trainings.c.study == self.study)
        last = connection.execute(highest).scalar() or 0
        for position, job in enumerate(jobs, start=last + 1):
            mine = {"study": self.study, "training": job["training"]}
            found = connection.execute(_equal(_trainings, ("training",), ()), mine).mappings().first()
            if found is None:
                row = {"study": self.study, "state": WAITING, "reason": "", "position": position, **job}
                connection.execute(_trainings.insert().values(row))
            elif found["config"] != job["config"] and job["training"].startswith(f"{job['config']}-"):
                changes = {"config": job["config"], "stage": job["stage"]}
                self._change(connection, _trainings.c.training, job["training"], changes)
