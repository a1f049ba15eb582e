"""The study's database: where it lies, how long a writer waits, what time it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

BUSY_SECONDS = 60  # how long a writer waits for another process that holds SQLite's lock
T = TypeVar("T")
MOUNTS = Path("/proc/self/mountinfo")
NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "glusterfs", "ocfs2", "gfs2",
    "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.ceph", "fuse.juicefs", "fuse.gcsfuse", "fuse.mount-s3",
}  # fmt: skip
CLOCKS = {  # seconds since 1970, as the database sees them
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())",
}


def sqlite_url(path: Path) -> str:
    """The database URL of a file."""
    return f"sqlite:///{path.resolve()}"


def file_system(folder: Path) -> str:
    """The kind of file system that an existing folder lies on, as the kernel names it; "" where it does not say."""
    place, longest, found = folder.resolve(), -1, ""
    for line in MOUNTS.read_text(encoding="utf-8").splitlines() if MOUNTS.exists() else ():
        front, _, back = line.partition(" - ")
        mounted = Path(front.split()[4].encode().decode("unicode_escape"))  # a space stands there as \\040
        if place.is_relative_to(mounted) and len(mounted.parts) >= longest:  # of equals the last one lies on top
            longest, found = len(mounted.parts), back.split()[0]
    return found


def waiting(url: str) -> dict[str, Any]:
    """Arguments of a connection that waits for another process's lock instead of failing."""
    return {"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {}


def connect(url: str) -> sa.Engine:
    """An engine that waits for another process's lock."""
    return sa.create_engine(url, connect_args=waiting(url))


def clock(connection: sa.Connection) -> float:
    """The database's time in seconds: one clock for all drivers of a study, however theirs are set."""
    return float(connection.execute(sa.text(f"SELECT {CLOCKS[connection.dialect.name]}")).scalar_one())


def one_of_us_does(make: Callable[[], T], tries: int = 5) -> T:
    """`make()`, which creates tables if they are not there: where two do so at once, the later one tries again."""
    for left in reversed(range(tries)):
        try:
            return make()
        except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError) as error:
            if not left or "exists" not in str(error) and "UNIQUE" not in str(error).upper():
                raise
            time.sleep(0.2)
    raise AssertionError("unreachable")
