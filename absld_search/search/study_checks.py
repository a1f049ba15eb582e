"""What `doctor` looks at in a study's folder: who may read it, who holds it, and whether what it holds is whole."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from absld_search.core import results
from absld_search.core.files import sha256_of
from absld_search.search import ledger as ledgers
from absld_search.search.checks import OK, PROBLEM, WARNING, Finding, stale_files, tighten
from absld_search.search.ledger import COMPLETE, RUNNING, WAITING, Ledger, Row, connect, sqlite_url
from absld_search.search.mlflow_view import store_uri
from absld_search.words import UsageError, counted, masked

CHECKPOINT_BYTES = 4 * 2**30  # of which the hash is computed; more would take minutes
ERRORS = (sa.exc.SQLAlchemyError, UsageError, ValueError, OSError)


def is_study(folder: Path) -> bool:
    """Whether a study was written there."""
    return any((folder / name).exists() for name in ("study.json", "study.db", "trainings", "driver.lock"))


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """The study's lock for as long as it is looked at, where nobody else has it; whether it was to be had."""
    file = folder / "driver.lock"
    if not file.exists():  # never started here: nothing to lock, and a check creates nothing
        yield True
        return
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def study(folder: Path, free: bool, storage: str | None) -> Iterator[Finding]:
    """Every check of a study's folder. `free`: nobody holds it; else nothing is offered to be put right."""
    trusted = list(_owner(folder))
    yield from trusted
    if any(found.state == PROBLEM and found.fix is None for found in trusted):
        return  # what another user may have written is not even read
    yield _holder(folder, free)
    ledger = yield from _ledger(folder, storage)
    if ledger is not None:
        yield from _zombies(ledger)
        yield _trainings(folder, ledger)
    yield _mlflow(folder)
    yield _checkpoints(folder)
    yield from stale_files("study", [folder])
    scratch = folder / "ray"
    if free and scratch.is_dir():
        yield Finding("study: scratch", WARNING, f"{scratch.name}/ was left by a killed driver and is never read",
                      "--fix removes it", lambda: _remove(scratch))  # fmt: skip


def _owner(folder: Path) -> Iterator[Finding]:
    found = folder.stat()
    if found.st_uid not in (os.getuid(), 0):
        yield Finding("study: owner", PROBLEM, f"{folder} belongs to user {found.st_uid}, not to you",
                      "do not go on in it: copy what you need, and look at it first")  # fmt: skip
        return
    if found.st_mode & 0o022:
        yield Finding("study: permissions", PROBLEM, f"others may write into {folder}: what is in it may not be yours",
                      f"chmod 700 {folder}", lambda: tighten(folder, 0o700))  # fmt: skip
    elif found.st_mode & 0o077:
        yield Finding("study: permissions", WARNING, f"others may read {folder}", f"chmod 700 {folder}",
                      lambda: tighten(folder, 0o700))  # fmt: skip
    else:
        yield Finding("study: permissions", OK, "yours alone")
    foreign = [path for path in folder.rglob("*") if _is_foreign(path)]
    if foreign:
        text = f"{len(foreign)} are another user's or lead out of the folder, {foreign[0].relative_to(folder)} first"
        yield Finding("study: files", PROBLEM, text, "look at them, and remove what you do not know")


def _is_foreign(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISLNK(found.st_mode) or found.st_uid not in (os.getuid(), 0)


def _holder(folder: Path, free: bool) -> Finding:
    note = folder / "driver.json"
    if not free:
        return Finding("study: lock", OK, f"a driver runs ({_read(note)}); nothing of the study will be touched")
    if note.exists():
        return Finding("study: lock", WARNING, f"free; its last driver was killed ({_read(note)})",
                       "run the same command again to continue", lambda: _remove(note))  # fmt: skip
    return Finding("study: lock", OK, "free")


def _read(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it left no note"


def _ledger(folder: Path, storage: str | None) -> Any:
    """Opens the ledger where its database is whole and of this program. A generator that returns it, or None."""
    if storage is None and not (folder / "study.db").is_file():
        yield Finding("study: database", PROBLEM, "there is no study.db", "give its --storage, if it has another")
        return None
    url = storage or sqlite_url(folder / "study.db")
    try:
        version = _version(url, folder.name)
        if ledgers.older(version):  # opening it would bring it up, and a look changes nothing
            yield _behind(url, folder.name, version)
            version = _version(url, folder.name)
        if ledgers.older(version):
            return None
        ledger = Ledger(url, folder.name)
    except ledgers.NewerSchema as error:
        yield Finding("study: database", PROBLEM, str(error), "use the absld_search that made it, or a newer one")
        return None
    except ERRORS as error:
        reason = masked(str(error).splitlines()[0])
        yield Finding("study: database", PROBLEM, reason, "restore it from a copy; its trainings/ are worth keeping")
        return None
    states = [row["state"] for row in ledger.trainings()]
    shown = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "no training yet"
    yield Finding("study: database", OK, f"schema as this program's; {shown}")
    return ledger


def _version(url: str, name: str) -> str:
    """The schema version of the study in a whole database. Raises: ERRORS."""
    engine = connect(url)
    try:
        with engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            said = connection.execute(sa.text("PRAGMA quick_check")).scalar() if url.startswith("sqlite") else "ok"
            if said != "ok" or "absld_facts" not in tables:
                raise ValueError("it is damaged" if said != "ok" else "it holds no study")
            found = ledgers.read_fact(connection, name, "schema_version")
    finally:
        engine.dispose()
    if found is None:
        raise ValueError(f"it knows no study {name!r}")
    ledgers.check_version(found)
    return str(found)


def _behind(url: str, name: str, version: str) -> Finding:
    def bring_up() -> str:
        ledger = Ledger(url, name)
        ledger.engine.dispose()
        return f"it has version {ledgers.SCHEMA_VERSION} now"

    text = f"version {version}; this program's is {ledgers.SCHEMA_VERSION}. Nothing more of it is looked at"
    remedy = "--fix brings it up and loses nothing, and so does the next start; an older program can't open it then"
    return Finding("study: schema", WARNING, text, remedy, bring_up)


def _zombies(ledger: Ledger) -> Iterator[Finding]:
    """Optuna trials that are RUNNING for nobody: they steer the sampler for ever."""
    try:
        from absld_search.search import reaping  # only now: Optuna takes a second

        found = reaping.zombies(ledger)
    except Exception as error:  # a database of another version of Optuna says so in words of its own
        yield Finding("study: optuna", PROBLEM, masked(str(error).splitlines()[0]), "`optuna storage upgrade`")
        return
    if found:
        yield Finding("study: optuna", PROBLEM, f"{len(found)} trials are RUNNING for nobody, {found[0]} first",
                      "--fix reaps them, and so does the next start", lambda: reaping.reap(ledger))  # fmt: skip
    else:
        yield Finding("study: optuna", OK, "schema as this program's; no zombie")


def _trainings(folder: Path, ledger: Ledger) -> Finding:
    complete = [row["training"] for row in ledger.trainings(state=COMPLETE)]
    bad = [key for key in complete if results.read_result(folder / "trainings" / key) is None]
    bad += [key for key in complete if not (folder / "trainings" / key / "model.safetensors").is_file()]
    if bad:
        return Finding("study: results", PROBLEM, f"{len(set(bad))} complete trainings lack results, {bad[0]} first",
                       "run the same command again: they are trained again")  # fmt: skip
    left = [row for row in ledger.trainings() if row["state"] in (WAITING, RUNNING)]
    return Finding("study: results", OK, f"{len(complete)} whole, {_left(left)}")


def _left(rows: list[Row]) -> str:
    return f"{len(rows)} to go: run the same command again" if rows else "nothing left to do"


def _checkpoints(folder: Path) -> Finding:
    """A checkpoint's name carries the start of its sha256."""
    files = sorted((folder / "trainings").glob("*/epoch-*-*.pt"))
    looked, bad = 0, []
    for file in files:
        if looked < CHECKPOINT_BYTES:
            looked += file.stat().st_size
            if sha256_of(file)[:16] != file.stem.rpartition("-")[2]:
                bad.append(file)
    if bad:
        return Finding("study: checkpoints", WARNING, f"{len(bad)} of {len(files)} damaged, {bad[0].parent.name} first",
                       "nothing: the one before is used")  # fmt: skip
    said = f"{counted(len(files), 'file')}, each with the content that its name promises" if files else "none kept"
    return Finding("study: checkpoints", OK, said)


def _mlflow(folder: Path) -> Finding:
    if not (folder.parent / "mlflow.db").is_file():
        return Finding("study: mlflow", OK, f"no store in {folder.parent}")
    from absld_search.search import tracking  # only now: MLflow takes a second

    try:
        found = tracking.newest_experiment(store_uri(folder.parent), folder.name)
    except (*tracking.MIRROR_ERRORS, ImportError) as error:
        reason = masked(str(error).splitlines()[0])
        return Finding("study: mlflow", PROBLEM, reason, "`mlflow db upgrade`, or remove it: a start fills a new one")
    if found is None:
        return Finding("study: mlflow", WARNING, "the store does not know this study", "run the same command again")
    return Finding("study: mlflow", OK, "schema as this program's; the study is in it")


def _remove(path: Path) -> str:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return f"removed {path.name}"
