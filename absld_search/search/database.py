"""The study's database: where it lies, how long a writer waits, what time it is there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

BUSY_SECONDS = 60  # how long a writer waits for another process that holds SQLite's lock
T = TypeVar("T")
MOUNTS = Path("/proc/mounts")
NETWORK = re.compile(
    r"nfs\d?|lustre|cifs|smb\d?|smbfs|afs|gpfs|beegfs|ceph|glusterfs|ocfs2|gfs2|9p|"
    r"wekafs|panfs|dvs|pvfs2|fhgfs|virtiofs|fuse\.(sshfs|glusterfs|ceph.*|s3fs|juicefs|gcsfuse|mount-s3|rclone)"
)
CLOCKS = {  # seconds since 1970, as the database sees them
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())",
}


def sqlite_url(path: Path) -> str:
    """The database URL of a file."""
    return f"sqlite:///{path.resolve()}"


def network_file_system(place: Path) -> str:
    """The kind of file system, where `place` (there or not yet) is on one that machines share: SQLite can't trust the
    locks of many of those. "" elsewhere, and where the system does not tell."""
    kind, longest, where = "", -1, place.resolve()
    try:
        lines = MOUNTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for _, point, found, *_ in map(str.split, lines):
        mounted = Path(point.replace("\\040", " "))
        if where.is_relative_to(mounted) and len(mounted.parts) >= longest:  # of two on one point, the later one
            kind, longest = found, len(mounted.parts)
    return kind if NETWORK.fullmatch(kind) else ""


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
