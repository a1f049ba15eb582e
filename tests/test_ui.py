"""The door `python -m absld_search.ui`: what it starts, where it listens, and that it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import ROOT, clean_environment, made_up_study, serving

LISTENING = "0A"
linux = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("study")
    made_up_study(out)
    return out


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def run_door(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "absld_search.ui", *arguments], cwd=ROOT, env=clean_environment(**environment),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def refused(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert all(word in line for word in words), line


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found |= family(int(child))
    return found


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a container's first process may never reap its orphans


def listening(pids: set[int]) -> list[str]:
    """The local addresses, in the kernel's hexadecimal, on which these processes listen."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            sockets.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == LISTENING and row[9] in sockets]


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_listens_on_loopback_only_and_leaves_no_process(study, number):
    with serving("--out", str(study)) as (door, link):
        pids = family(door.pid)
        port = int(link.split(":")[2].split("/")[0])
        assert len(pids) > 1
        assert listening(pids) == [f"0100007F:{port:04X}"]
        door.send_signal(number)
        assert door.wait(timeout=300) == 0
        assert not [pid for pid in pids if lives(pid)]


@pytest.mark.slow
def test_a_taken_default_port_gives_the_next_free_one(study):
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 5000))
            holder.listen()
        except OSError:
            pass  # somebody else holds it, which serves as well
        with serving("--out", str(study)) as (_, link):
            port = int(link.split(":")[2].split("/")[0])
            assert 5000 < port < 5100
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                assert answer.status == 200


@pytest.mark.slow
def test_a_running_server_gets_a_link_and_no_second_server(study):
    with serving("--out", str(study)) as (_, link):
        server = link.split("/#")[0]
        result = run_door("--out", str(study / "not_looked_at"), MLFLOW_TRACKING_URI=server)
        named = server.replace("://", "://somebody:hunter2@")
        secret = run_door("--tracking-uri", named)
    assert result.returncode == 0
    first, plain = result.stdout.splitlines()
    assert (
        first == link and plain.startswith("Should MLflow show an empty page") and f"{server}/#/experiments/" in plain
    )
    assert secret.returncode == 0 and "hunter" not in secret.stdout + secret.stderr
    assert len(secret.stdout.splitlines()) == 2 and "://somebody:***@" in secret.stdout


def test_a_port_asked_for_and_taken_is_refused(study, taken_port):
    words = ("--out", str(study), "--port", str(taken_port))
    refused(run_door(*words, "--study", "made_up"), f"port {taken_port} is taken", "--port")
    first, second = run_door(*words).stderr.splitlines()
    assert first.startswith("study made_up: the newest; --study") and "is taken" in second


def test_no_store_is_refused_and_not_created(tmp_path):
    out = tmp_path / "nowhere"
    refused(run_door("--out", str(out)), str(out), "make run")
    assert not out.exists()


def test_a_store_without_a_study_is_refused(tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/other.db"
    MlflowClient(uri).create_experiment("somebody else's")
    refused(run_door("--tracking-uri", uri), uri, "no study", "make run")


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database" * 100)
    refused(run_door("--out", str(tmp_path)), "mlflow.db", "cannot read")


def test_a_server_that_does_not_answer_is_refused():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound and not listening: nobody can answer here
        refused(run_door(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{holder.getsockname()[1]}"), "cannot read")
