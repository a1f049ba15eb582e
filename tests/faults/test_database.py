"""C2, D1, S1, S2, S3, S5, T1 and old schemas: what can happen to a study's database."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from absld_search import run
from absld_search.core import faults
from absld_search.core.store import Store
from absld_search.search import database, forking, ownership, preflight
from absld_search.search.ledger import COMPLETE, FAILED, SCHEMA_VERSION, WAITING, Ledger
from absld_search.search.queue import LOSSES, TRIES, Queue
from absld_search.search.study import held, why_stopped
from absld_search.space import LogUniform, SearchSpace
from absld_search.words import UsageError
from tests.faults import fake
from tests.faults.invariants import check
from tests.faults.rounds import ended, fork
from tests.search.requests import TWO_ARMS, plan, pretend

OFFSETS = int(os.environ.get("ABSLD_FAULT_ROUNDS", "20"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    fake.drive(fake.study(out))
    return out


@pytest.fixture
def done(whole: Path, tmp_path: Path) -> Path:
    """The folder of a study that has ended well."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path / "study"


def test_a_database_cut_off_anywhere_never_begins_a_new_study_in_silence(done: Path) -> None:
    """C2."""
    file, made = done / "study.db", fake.study(done.parent)
    content = file.read_bytes()
    for number in range(OFFSETS):
        file.write_bytes(content[: len(content) * number // OFFSETS])
        with pytest.raises(UsageError, match="--storage: the database"):
            preflight.check_storage(made)
    file.unlink()
    with pytest.raises(UsageError, match="knows nothing of study 'study'"):
        preflight.check_storage(made)
    file.write_bytes(content)
    preflight.check_storage(made)


FULL_AT = ["ledger.before_commit", "shard.before_fsync", "tables.before_rename", "result.before_write"]


@pytest.mark.parametrize("point", FULL_AT)
def test_a_full_disk_breaks_nothing_and_is_told_from_a_fault_of_ours(point: str, tmp_path: Path) -> None:
    """D1, injected: what is full says so, and the next start goes on."""
    made = fake.study(tmp_path)
    faults.arm(f"{point}:3+:enospc")
    try:
        with pytest.raises(OSError) as raised:
            fake.drive(made)
    finally:
        faults.arm("")
    assert "the disk is full" in str(why_stopped(raised.value))
    check(made.folder, settled=False)
    fake.drive(made)
    check(made.folder, settled=True)


def test_a_real_limit_on_files_is_a_full_disk_too(tmp_path: Path) -> None:
    """D1: the kernel refuses to write more, inside SQLite and outside."""
    import resource

    made = fake.study(tmp_path)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        try:
            fake.drive(made)
        except Exception as error:
            os._exit(75 if why_stopped(error) else 1)

    assert ended(fork(limited)) == 75
    fake.drive(made)
    check(made.folder, settled=True)


def test_an_interruption_amid_an_import_is_one(tmp_path: Path) -> None:
    """Python turns what a field's `__set_name__` raises into a RuntimeError; torch imports such classes when asked."""

    class Interrupted:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    try:
        type("Imported", (), {"field": Interrupted()})
    except KeyboardInterrupt:
        pass  # newer Pythons leave it as it is
    except RuntimeError as error:
        assert why_stopped(error) == "interrupted"


def test_why_stopped_knows_whose_fault_it_is() -> None:
    wrapped = RuntimeError("Error calling __set_name__")
    wrapped.__cause__ = KeyboardInterrupt()
    assert why_stopped(wrapped) == "interrupted"
    assert why_stopped(ValueError("a bug")) is None and why_stopped(KeyError("x")) is None
    assert "disk is full" in str(why_stopped(OSError(errno.EDQUOT, "quota")))
    secret = sa.exc.OperationalError("", {}, Exception("no postgresql://me:hunter2@host/x"))
    assert "hunter2" not in str(why_stopped(secret)) and "cannot be used" in str(why_stopped(secret))
    try:
        raise RuntimeError("Ray says") from ownership.LeaseLost("taken over")
    except RuntimeError as error:
        assert why_stopped(error) == "taken over"


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    """S1."""
    made = fake.study(tmp_path)
    ledger = Ledger(made.request.storage, "study")
    other = sqlite3.connect(made.folder / "study.db", check_same_thread=False, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(1.0, lambda: other.execute("COMMIT"))
    release.start()
    fake.drive(made)
    release.join()
    check(made.folder, settled=True)
    assert len(ledger.trainings(state=COMPLETE)) == fake.TRAININGS


def test_a_database_locked_for_too_long_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake.study(tmp_path)
    Ledger(made.request.storage, "study")
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with sqlite3.connect(made.folder / "study.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sa.exc.OperationalError) as raised:
            fake.drive(made)
        assert "database is locked" in str(why_stopped(raised.value))
        other.execute("ROLLBACK")
    fake.drive(made)
    check(made.folder, settled=True)


@pytest.mark.slow
def test_four_studies_write_into_one_database(tmp_path: Path) -> None:
    """S2: each driver its own study, all at once, from the first table on."""
    url = database.sqlite_url(tmp_path / "all.db")
    plans = [fake.study(tmp_path, study=f"s{number}", storage=url) for number in range(4)]
    pids = [fork(lambda made=made: fake.drive(made)) for made in plans]
    assert [ended(pid) for pid in pids] == [0] * 4
    for made in plans:
        states = [row["state"] for row in Ledger(url, made.request.study).trainings()]
        assert states == [COMPLETE] * fake.TRAININGS


@pytest.mark.slow
def test_a_fresh_mlflow_store_opened_by_many_at_once(tmp_path: Path) -> None:
    """S3: unguarded, 19 of 24 processes died in MLflow's migrations."""
    from absld_search.search.mirroring import Mirroring

    plans = [fake.study(tmp_path, study=f"s{number}") for number in range(4)]

    def open_store(number: int) -> None:
        def say(line: str) -> None:
            raise AssertionError(line)

        mirroring = Mirroring(plans[number], Ledger(plans[number].request.storage, f"s{number}"), say)
        mirroring.open()
        mirroring.close(60.0)  # it is told in the background

    pids = [fork(lambda number=number: open_store(number)) for number in range(4)]
    assert [ended(pid) for pid in pids] == [0] * 4
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        names = {name for (name,) in store.execute("SELECT name FROM experiments")}
    assert names >= {"s0", "s1", "s2", "s3"}


CHANGES = [
    (dict(set={"learning_rate": "0.3"}), "with learning_rate = "),
    (dict(set={"epochs": "7"}), "with epochs = "),
    (dict(set={"eps": "0.05"}), "with eps = "),
    (dict(set={"weight_decay": "0.1"}), "with weight_decay = "),
    (dict(search_seeds=2), "search_seeds"),
    (dict(workload="digits"), "workload."),
]
ARMS = {"dual": {"coupling": "dual"}, "rslad": {"temperature_lr": 0.0}}
SPACES = [
    (SearchSpace({"method": "absld"}, {**ARMS, "dual": {"coupling": "shared"}}, TWO_ARMS.tuned), "with coupling = "),
    (
        SearchSpace({"method": "absld"}, ARMS, {"temperature_lr": LogUniform(1e-2, 2.0)}),
        "temperature_lr searched in ",
    ),
    (SearchSpace({"method": "absld"}, {"rslad": ARMS["rslad"]}, TWO_ARMS.tuned), "arm 'dual' that the space has no"),
    (SearchSpace({"method": "absld", "coupling_strength": 0.5}, ARMS, TWO_ARMS.tuned), "with coupling_strength = "),
    (SearchSpace({"method": "absld"}, ARMS, TWO_ARMS.tuned, {"robust_accuracy": "max"}), "objectives"),
]


@pytest.mark.parametrize(("words", "field"), CHANGES, ids=[field for _, field in CHANGES])
def test_another_request_is_refused_with_the_fields_name(done: Path, words: dict, field: str) -> None:
    """S5."""
    words = dict(words)
    made = fake.study(done.parent, **{key: value for key, value in words.items() if key != "workload"})
    if "workload" in words:
        from dataclasses import replace

        from absld_search.search.plan import resolve

        made = resolve(replace(made.request, workload=words["workload"]), TWO_ARMS)
    with pytest.raises(UsageError, match=rf"{field}.*--fork-study"):
        preflight.check_storage(made)


@pytest.mark.parametrize(("space", "field"), SPACES, ids=[field for _, field in SPACES])
def test_another_space_is_refused_with_the_fields_name(done: Path, space: SearchSpace, field: str) -> None:
    """S5."""
    with pytest.raises(UsageError, match=field):
        preflight.check_storage(fake.study(done.parent, space=space))


def test_more_trials_seeds_and_arms_extend(done: Path) -> None:
    before = {row["training"] for row in Ledger(f"sqlite:///{done / 'study.db'}", "study").trainings()}
    more = SearchSpace({"method": "absld"}, {**ARMS, "shared": {"coupling": "shared"}}, TWO_ARMS.tuned)
    made = fake.study(done.parent, space=more, trials=4, seeds=3)
    preflight.check_storage(made)
    fake.drive(made)
    check(done, settled=True)
    ledger = Ledger(made.request.storage, "study")
    assert {len(ledger.trials(arm=arm)) for arm in ("dual", "shared")} == {4}
    again = [key for key, epochs in fake.marks(done).items() if key in before and len(epochs) > fake.EPOCHS]
    assert not again, "what was there is not trained again"


def test_a_fork_takes_the_next_name_and_is_found_again(done: Path) -> None:
    same = fake.study(done.parent)
    assert forking.forked(same) is same, "what fits is not forked"
    other = fake.study(done.parent, set={"learning_rate": "0.3"})
    fork = forking.forked(other)
    assert (fork.request.study, fork.request.forked_from) == ("study-2", "study")
    assert fork.request.storage.endswith("study-2/study.db") and fork.folder.name == "study-2"
    fork.folder.mkdir()
    fake.drive(fork)
    check(fork.folder, settled=True)
    assert forking.forked(other).request.study == "study-2", "the same command continues its fork"
    third = forking.forked(fake.study(done.parent, set={"learning_rate": "0.4"}))
    assert third.request.study == "study-3"
    check(done, settled=True)


def test_an_older_schema_is_brought_up_and_loses_nothing(done: Path) -> None:
    file = done / "study.db"
    with sqlite3.connect(file) as connection:  # as version 1 left it
        connection.execute("ALTER TABLE absld_trainings DROP COLUMN losses")
        connection.execute("DROP TABLE absld_leases")
        connection.execute("UPDATE absld_facts SET value = '\"1\"' WHERE key = 'schema_version'")
    made = fake.study(done.parent, trials=fake.TRIALS + 1)
    preflight.check_storage(made)
    fake.drive(made)
    ledger = Ledger(made.request.storage, "study")
    assert ledger.known("schema_version") == SCHEMA_VERSION
    assert {row["losses"] for row in ledger.trainings()} == {0} and len(ledger.trials(arm="dual")) == fake.TRIALS + 1
    check(done, settled=True)


def test_a_newer_schema_is_refused_by_name_before_anything_is_touched(done: Path) -> None:
    with sqlite3.connect(done / "study.db") as connection:
        connection.execute("UPDATE absld_facts SET value = '\"99\"' WHERE key = 'schema_version'")
    before = (done / "study.db").read_bytes()
    with pytest.raises(UsageError, match="schema version 99"):
        preflight.check_storage(fake.study(done.parent))
    assert (done / "study.db").read_bytes() == before


def test_a_clock_set_between_sessions_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T1: half the study, then the rest by a clock an hour back and a day forward; files' times too."""
    made = fake.study(tmp_path)
    for point, shift in (("worker.epoch:8:raise", -3600), ("worker.epoch:9:raise", 86400), ("", 0)):
        faults.arm(point)
        try:
            fake.drive(made)
        except faults.Injected:
            check(made.folder, settled=False)
        finally:
            faults.arm("")
        for path in made.folder.rglob("epoch-*.pt"):
            os.utime(path, (time.time() + shift, time.time() + shift))
        monkeypatch.setattr(database, "CLOCKS", {"sqlite": f"({database.CLOCKS['sqlite']}) + ({shift})"})
    check(made.folder, settled=True)
    for key, epochs in fake.marks(made.folder).items():
        assert len(epochs) <= fake.EPOCHS + 1 and epochs == sorted(epochs), (key, epochs)


def test_the_machines_failures_are_tried_again_and_counted(tmp_path: Path) -> None:
    """K5 without Ray: so often in one start, so often in all, and never at the configuration's expense before that."""
    made = fake.study(tmp_path, trials=1)
    for start in range(1, LOSSES // TRIES + 1):
        queue = Queue(made, Ledger(made.request.storage, "study"))
        unlucky = queue.ledger.trainings()[0]["training"] if start > 1 else None
        while (row := queue.take()) is not None:
            unlucky = unlucky or row["training"]
            if row["training"] == unlucky:
                queue.machine_failed(unlucky, "its worker died")
            else:
                queue.done(row["training"], pretend(row["job"]), "", epochs=1, seconds=0.0)
        assert queue.finished()
        (found,) = queue.ledger.trainings(training=unlucky)
        assert found["losses"] == found["attempts"] == start * TRIES
        assert found["state"] == (WAITING if start * TRIES < LOSSES else FAILED)
        assert "machine: its worker died" in found["reason"]
    assert queue.ledger.trials(arm="dual")[0]["state"] == FAILED


def test_an_outage_does_not_use_up_the_search(tmp_path: Path) -> None:
    """While machines lose whatever they are handed nothing new is asked; one training that ends well opens it again."""
    made = fake.study(tmp_path, trials=20)
    queue, handed = Queue(made, Ledger(made.request.storage, "study")), Counter[str]()
    while (row := queue.take()) is not None:
        handed[row["training"]] += 1
        queue.machine_failed(row["training"], "no GPU")
    assert list(handed.values()) == [TRIES, TRIES] and queue.finished()
    again = Queue(made, Ledger(made.request.storage, "study"))
    unlucky = again.take()
    while (row := again.take()) is not None:
        again.done(row["training"], pretend(row["job"]), "", epochs=1, seconds=0.0)
    assert unlucky is not None and len(again.ledger.trials()) == 21, "one loss stops nobody"


def test_a_pause_hands_nothing_out_and_loses_nothing(tmp_path: Path) -> None:
    made = fake.study(tmp_path)
    queue = Queue(made, Ledger(made.request.storage, "study"))
    row = queue.take()
    assert row is not None
    queue.paused = "the disk is full"
    back = queue.put_back(row["training"], queue.paused)
    assert back["state"] == WAITING and back["losses"] == 0
    assert queue.take() is None and queue.finished()
    fake.drive(made)
    check(made.folder, settled=True)


def test_too_little_room_is_refused_before_anything_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake.study(tmp_path)
    preflight.check_space(made)
    needed = preflight.bytes_needed(made)
    assert needed > preflight.bytes_needed(fake.study(tmp_path, trials=2))
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(UsageError, match="--out: .* GB free, this study needs about"):
        preflight.check(made)


def test_a_damaged_result_is_not_fetched_again(tmp_path: Path) -> None:
    """It has the right size, so a worker would take it from the store, and the driver refuse it, for ever."""
    made = fake.study(tmp_path, store=f"file://{tmp_path}/store")
    fake.drive(made)
    folder, store = sorted((made.folder / "trainings").iterdir())[0], Store(made.request.store)
    for path in folder.glob("*.parquet"):
        path.write_bytes(bytes(path.stat().st_size))
    store.push(folder, f"study/trainings/{folder.name}")
    with held(made) as started:
        started.write()
        assert [row["training"] for row in started.ledger.trainings(state=WAITING)] == [folder.name]
    store.pull(f"study/trainings/{folder.name}", folder)
    assert not folder.exists()


@pytest.mark.parametrize("flag", ["--storage", "--store"])
def test_a_study_that_has_begun_waits_for_what_is_away(tmp_path: Path, flag: str) -> None:
    """A job that is put back into a queue must not end for good because a server restarts."""
    if flag == "--storage":
        pytest.importorskip("psycopg")
    (tmp_path / "file").touch()
    where = {"--storage": "postgresql+psycopg://nobody@localhost:1/none", "--store": f"file://{tmp_path}/file/below"}
    words = ["ablation_dual_temps", "--smoke", "--study", "begun", "--out", str(tmp_path), flag, where[flag]]
    new = CliRunner().invoke(run.main, words)
    assert new.exit_code == 2 and flag in new.output
    (tmp_path / "begun").mkdir(mode=0o700)
    (tmp_path / "begun" / "study.json").touch()
    begun = CliRunner().invoke(run.main, words)
    assert begun.exit_code == 75 and flag in begun.output and "Run the same command again" in begun.output


def test_a_file_system_that_machines_share_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's locks are no good on many of them, so doctor says so."""
    from absld_search.search import checks

    shared = tmp_path / "a share"
    shared.mkdir()
    mounts, escaped = tmp_path / "mounts", str(shared.resolve()).replace(" ", "\\040")
    lines = ["/dev/sda / ext4 rw 0 0", f"server:/export {escaped} nfs4 rw 0 0", f"tmpfs {escaped}/own tmpfs rw 0 0"]
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(database, "MOUNTS", mounts)
    kinds = {
        place: database.network_file_system(place) for place in (shared / "not yet", shared / "own" / "x", tmp_path)
    }
    assert list(kinds.values()) == ["nfs4", "", ""]
    monkeypatch.setattr(database, "MOUNTS", tmp_path / "none")  # another system
    assert database.network_file_system(shared) == ""
    monkeypatch.setattr(database, "MOUNTS", mounts)
    assert checks._file_system(shared).state == "warning" and checks._file_system(tmp_path).state == "ok"


def test_sqlite_on_a_file_system_that_machines_share_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(database, "MOUNTS", mounts)
    mounts.write_text("/dev/sda / ext4 rw 0 0")
    preflight.check_storage(plan(tmp_path))
    mounts.write_text("server:/export / nfs rw 0 0")
    with pytest.raises(UsageError, match="nfs, a network file system.*PostgreSQL"):
        preflight.check_storage(plan(tmp_path))
    own = tmp_path / "own"
    for kind in ("nfs4", "wekafs", "panfs", "dvs", "pvfs2", "fhgfs", "virtiofs", "fuse.rclone"):
        mounts.write_text(f"server:/export / {kind} rw 0 0\n/dev/sda {own.resolve()} ext4 rw 0 0")
        with pytest.raises(UsageError, match=f"--tracking-uri: .* {kind}, a network file system.*an MLflow server"):
            preflight.check(plan(tmp_path, storage=f"sqlite:///{own}/study.db"))
    preflight.check(plan(tmp_path, storage=f"sqlite:///{own}/study.db", tracking_uri=f"sqlite:///{own}/mlflow.db"))


def test_study_json_stays_whole_when_the_tables_are_killed(done: Path) -> None:
    before = json.loads((done / "study.json").read_text())
    made = fake.study(done.parent)
    for step in faults.STEPS:

        def work(step: str = step) -> None:
            faults.arm(f"tables.{step}:2,file.{step}:2")
            fake.drive(made)

        assert ended(fork(work)) == -9
        assert json.loads((done / "study.json").read_text())["objectives"] == before["objectives"]
        fake.drive(made)
        check(done, settled=True)
