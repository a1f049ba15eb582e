"""A PostgreSQL of one's own: `with server(folder) as url`, or `python -m tests.cluster.postgres FOLDER` until ^C.

It listens on a loopback port that nobody uses, asks for a password, keeps its data in the given folder and is ended by
its own process id. PostgreSQL refuses to run as root; then it runs as the user that Debian's package makes for it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
PROGRAMS = ("postgres", "initdb", "pg_isready")


def binaries() -> Path | None:
    """The folder of PostgreSQL's server programs, None where there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    places = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)), *debian]  # Debian keeps them off the PATH
    return next((place for place in places if all((place / name).is_file() for name in PROGRAMS)), None)


def why_not() -> str:
    """Why no server can be started here; empty where one can."""
    if binaries() is None:
        return "no PostgreSQL server is installed (Debian: apt install postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (the extra `cluster`)"
    if os.geteuid() == 0 and not _user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def _user() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return ""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def server(folder: Path, *settings: str) -> Iterator[str]:
    """The SQLAlchemy URL of a server with an empty database; `settings` as `name=value`."""
    place, port, password = folder / "postgres", free_port(), secrets.token_hex(16)
    _create(place, password)
    process = _start(place, port, settings)
    try:
        _wait(process, port, place / "log")
        yield f"postgresql+psycopg://absld:{password}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # "fast": connections are cut, data written
        process.wait(timeout=60)


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_user())
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _create(place: Path, password: str) -> None:
    folder = binaries()
    assert folder is not None, why_not()
    place.mkdir(parents=True, mode=0o700)
    secret = place / "password"
    secret.write_text(password)
    if os.geteuid() == 0:
        for path in (place, secret):
            shutil.chown(path, _user(), pwd.getpwnam(_user()).pw_gid)
        _let_through(place.parent)
    words = ["--username", "absld", "--auth", "scram-sha-256", "--pwfile", str(secret), "--no-locale", "-E", "UTF8"]
    made = subprocess.run([folder / "initdb", "-D", place / "data", *words], capture_output=True, text=True,
                          cwd=place, **_as_user())  # fmt: skip
    assert made.returncode == 0, made.stderr
    secret.unlink()


def _let_through(folder: Path) -> None:
    """Temporary folders are their owner's alone, and here the server is another user."""
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o001:
            continue
        path.chmod(path.stat().st_mode | 0o011)


def _start(place: Path, port: int, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
    folder = binaries()
    assert folder is not None
    words = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
    with (place / "log").open("wb") as log:
        return subprocess.Popen(
            [str(folder / "postgres"), "-D", str(place / "data"), *(part for word in words for part in ("-c", word))],
            stdout=log, stderr=log, cwd=place, start_new_session=True, **_as_user(),
        )  # fmt: skip


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    folder = binaries()
    assert folder is not None
    ready = [str(folder / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(ready).returncode != 0:
        assert process.poll() is None, f"PostgreSQL did not start: {log.read_text()}"
        assert time.monotonic() < deadline, f"PostgreSQL does not answer: {log.read_text()}"
        time.sleep(0.2)


def main() -> None:
    with server(Path(sys.argv[1]).absolute()) as url:
        print(url, flush=True)
        signal.sigwait([signal.SIGINT, signal.SIGTERM])


if __name__ == "__main__":
    main()
