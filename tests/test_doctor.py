"""`absld_search.doctor`: it finds what is broken in real folders, puts right what is safe, and touches nothing else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from absld_search import doctor
from absld_search.core import checkpoints
from absld_search.search import checks, listening, study_checks
from absld_search.search.checks import Finding
from absld_search.search.ledger import sqlite_url

ROOT = Path(__file__).parents[1]
HOUR = 3601


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A finished study that a test may break."""
    made = tmp_path / "runs" / study.name
    shutil.copytree(study, made)
    shutil.copy(study.parent / "mlflow.db", made.parent)
    made.chmod(0o700)
    return made


@pytest.fixture
def healthy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "machine", lambda out: iter(()))


def look(*words: object) -> tuple[Result, dict[str, dict[str, str]]]:
    found = CliRunner().invoke(doctor.main, [*map(str, words), "--json"])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    return found, {row["check"]: row for row in rows}


def snapshot(folder: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Everything in a folder, but SQLite's and the lock's own traces of having been opened."""
    files = {path: path.lstat() for path in sorted(folder.rglob("*")) if path.name not in ("driver.lock",)}
    return {p: (s.st_mode, s.st_size, p.read_bytes() if p.is_file() else b"") for p, s in files.items()}


@pytest.mark.slow
def test_the_real_command_on_this_machine_and_a_healthy_study(copy: Path) -> None:
    before = snapshot(copy)
    line = [sys.executable, "-m", "absld_search.doctor", str(copy), "--json"]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    rows = {row["check"]: row for row in map(json.loads, found.stdout.splitlines())}
    assert {"python", "packages", "gpu", "out folder", "network", "ray token", "ui port"} <= rows.keys()
    ours = {name: row["state"] for name, row in rows.items() if name.startswith("study")}
    assert set(ours.values()) == {"ok"}, ours
    assert len(ours) >= 8
    problems = [row for row in rows.values() if row["state"] == "problem"]
    assert found.returncode == (1 if problems else 0), found.stderr
    assert all(row["remedy"] for row in rows.values() if row["state"] != "ok")
    assert snapshot(copy) == before, "a look changes nothing"


def test_no_study_there_is_a_usage_error_and_creates_nothing(tmp_path: Path) -> None:
    found, rows = look(tmp_path / "nowhere")
    assert found.exit_code == 2 and "no study" in found.stderr and not rows
    assert not list(tmp_path.iterdir())


def zombie(folder: Path) -> None:
    study = optuna.load_study(study_name=f"{folder.name}.dual", storage=sqlite_url(folder / "study.db"))
    study.ask()


def stale(folder: Path) -> None:
    file = folder / "trainings" / f".model.safetensors.{2**22 + 1}.tmp"  # above any process number of Linux
    file.write_bytes(b"half of it")
    os.utime(file, (file.stat().st_mtime - HOUR,) * 2)


def killed(folder: Path) -> None:
    (folder / "driver.json").write_text('{"pid": 12345, "host": "elsewhere"}')


def scratch(folder: Path) -> None:
    (folder / "ray" / "tune").mkdir(parents=True)


def older_schema(folder: Path) -> None:
    with sqlite3.connect(folder / "study.db") as database:  # as version 1 left it
        database.execute("ALTER TABLE absld_trainings DROP COLUMN losses")
        database.execute("DROP TABLE absld_leases")
        database.execute("UPDATE absld_facts SET value = '\"1\"' WHERE key = 'schema_version'")


SAFE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "study: optuna": (zombie, "problem", "RUNNING for nobody"),
    "study: temporary files": (stale, "warning", "left by killed processes"),
    "study: lock": (killed, "warning", "process 12345 on elsewhere"),
    "study: scratch": (scratch, "warning", "never read"),
    "study: schema": (older_schema, "warning", "version 1; this program's is 2"),
    "study: permissions": (lambda folder: folder.chmod(0o777), "problem", "may write"),
}


@pytest.mark.usefixtures("healthy_machine")
@pytest.mark.parametrize("name", SAFE)
def test_what_is_safe_is_found_then_fixed_then_gone(name: str, copy: Path) -> None:
    breaking, state, text = SAFE[name]
    breaking(copy)
    before = snapshot(copy)
    found, rows = look(copy)
    assert rows[name]["state"] == state and text in rows[name]["text"] and rows[name]["remedy"]
    assert found.exit_code == (1 if state == "problem" else 0)
    assert snapshot(copy) == before, "a look changes nothing"
    found, rows = look(copy, "--fix")
    assert found.exit_code == 0 and rows[name]["fixed"]
    found, rows = look(copy)
    assert found.exit_code == 0 and rows.get(name, {"state": "ok"})["state"] == "ok"


@pytest.mark.usefixtures("healthy_machine")
def test_a_held_study_is_not_touched(copy: Path) -> None:
    for breaking in (zombie, stale, killed, scratch):
        breaking(copy)
    copy.chmod(0o755)
    with FileLock(copy / "driver.lock"):
        before = snapshot(copy)
        found, rows = look(copy, "--fix")
        assert snapshot(copy) == before and copy.stat().st_mode & 0o777 == 0o755
    assert "process 12345 on elsewhere" in rows["study: lock"]["text"]
    assert not any(row["fixed"] for row in rows.values())


def without_results(folder: Path) -> None:
    next((folder / "trainings").glob("*-s1000/images.parquet")).write_bytes(b"")


def without_database(folder: Path) -> None:
    (folder / "study.db").write_bytes(b"not a database" * 1000)


def newer_schema(folder: Path) -> None:
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("UPDATE absld_facts SET value = '\"9\"' WHERE key = 'schema_version'")


def anothers(folder: Path) -> None:
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("UPDATE absld_facts SET study = 'another'")


def other_optuna(folder: Path) -> None:
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
        database.execute("UPDATE version_info SET schema_version = 99")


def other_mlflow(folder: Path) -> None:
    with sqlite3.connect(folder.parent / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")


def damaged_checkpoint(folder: Path) -> None:
    training = next((folder / "trainings").glob("*-s1000"))
    file = checkpoints.save(training, 3, {"epoch": 3})
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def leads_out(folder: Path) -> None:
    (folder / "trainings" / "away").symlink_to("/etc")


BROKEN: dict[str, tuple[str, Callable[[Path], object], str, int]] = {
    "results": ("study: results", without_results, "lack results", 1),
    "database": ("study: database", without_database, "not a database", 1),
    "another's": ("study: database", anothers, "knows no study", 1),
    "schema": ("study: database", newer_schema, "schema version 9, this program", 1),
    "optuna": ("study: optuna", other_optuna, "", 1),
    "mlflow": ("study: mlflow", other_mlflow, "", 1),
    "checkpoint": ("study: checkpoints", damaged_checkpoint, "1 of 1 damaged", 0),
    "symlink": ("study: files", leads_out, "lead out of the folder", 1),
}


@pytest.mark.usefixtures("healthy_machine")
@pytest.mark.parametrize("case", BROKEN)
def test_what_a_person_must_decide_is_found_and_left(case: str, copy: Path) -> None:
    name, breaking, text, code = BROKEN[case]
    breaking(copy)
    before = snapshot(copy)
    found, rows = look(copy, "--fix")
    assert rows[name]["state"] == ("problem" if code else "warning") and text in rows[name]["text"], rows[name]
    assert rows[name]["remedy"] and found.exit_code == code
    assert "Traceback" not in found.output
    assert snapshot(copy) == before


@pytest.mark.usefixtures("healthy_machine")
def test_another_users_folder_is_not_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    os.chown(copy, 4343, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "getuid", lambda: 4242)
    found, rows = look(copy)
    assert found.exit_code == 1 and set(rows) == {"study: owner"}


def of(findings: object, name: str) -> Finding:
    return next(each for each in findings if each.name == name)  # type: ignore[attr-defined]


def test_a_token_that_others_can_read_is_tightened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    found = of(checks._ray(), "ray token")
    assert found.state == "problem" and found.fix is not None and "secret" not in found.text
    found.fix()
    assert token.stat().st_mode & 0o777 == 0o600 and of(checks._ray(), "ray token").state == "ok"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert of(checks._ray(), "ray token").state == "warning"


@pytest.mark.skipif(not listening.known(), reason="reads Linux's /proc")
def test_a_door_that_others_can_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as outside, socket.socket() as inside, socket.socket(socket.AF_INET6) as six:
        places = ((outside, "0.0.0.0"), (inside, "127.0.0.1"), (six, "::1"))
        for door, address in places:
            door.bind((address, 0))
            door.listen()
        mine = listening.listeners({os.getpid(): "mlflow server"})
        assert {(one.address, one.port) for one in mine} >= {(a, door.getsockname()[1]) for door, a in places}
        monkeypatch.setattr(listening, "commands", lambda: {os.getpid(): "mlflow server"})
        exposed = [found for found in checks._network() if found.state == "warning"]
        assert any(f"0.0.0.0:{outside.getsockname()[1]}" in found.text for found in exposed)
        assert not any(str(door.getsockname()[1]) in found.text for found in exposed for door in (inside, six))


def test_versions_out_of_range_and_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging.requirements import Requirement

    wanted = [Requirement("click>=99"), Requirement("no-such-package-here"), Requirement("numpy>=1")]
    monkeypatch.setattr(checks, "requirements", lambda: wanted)
    found = {each.name: each for each in checks._packages()}
    assert set(found) == {"click", "no-such-package-here"}
    assert all(each.state == "problem" and "pip install" in each.remedy for each in found.values())


def test_the_projects_own_requirements_are_read() -> None:
    names = {each.name: each for each in checks.requirements()}
    assert {"torch", "ray", "optuna", "mlflow"} <= names.keys()
    assert not names["torch"].specifier.contains("2.9.1"), "CVE-2026-24747"


def test_a_torchvision_that_does_not_fit_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in (
        ("torch", "__version__ = '2.15.0'"),
        ("torchvision", "raise RuntimeError('nms does not exist')"),
    ):
        (tmp_path / f"{name}.py").write_text(said)
    with open(tmp_path / "torch.py", "a") as file:
        file.write("\nclass version: cuda = None\nclass cuda:\n    device_count = staticmethod(lambda: 0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = [sys.executable, "-c", checks.ASK_TORCH]
    asked = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found = of(checks._torch(asked), "torchvision")
    assert found.state == "warning" and "nms does not exist" in found.text
    broken = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no torch')"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert of(checks._torch(broken), "torch").state == "problem"


def test_a_live_writers_temporary_file_is_left(tmp_path: Path) -> None:
    live, foreign = tmp_path / f".a.{os.getpid()}.tmp", tmp_path / ".somebody.tmp"
    young = tmp_path / f".b.{2**22 + 1}.tmp"
    for file in (live, foreign, young):
        file.write_bytes(b"")
    for file in (live, foreign):
        os.utime(file, (file.stat().st_mtime - HOUR,) * 2)
    assert [found.state for found in checks.stale_files("x", [tmp_path])] == ["ok"]
    assert study_checks.is_study(tmp_path) is False
