"""Slurm on this machine as a cluster of one node: Debian's daemons, loopback ports, ended by their own process ids."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.postgres import free_port

START_SECONDS = 60.0
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
CONFIGURATION = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SlurmUser=root
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; empty where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"Slurm is not installed: no {missing[0]} (Debian: apt install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd starts jobs of other users, so it needs root"


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # not a test's own, which user munge may not enter
        yield from _slurm(Path(folder))


def _slurm(place: Path) -> Iterator[dict[str, str]]:
    host = socket.gethostname().partition(".")[0]
    words = {"host": host, "place": place, "ports": (free_port(), free_port()), "cores": os.cpu_count()}
    (place / "slurm.conf").write_text(CONFIGURATION.format(**words))
    (place / "state").mkdir()
    (place / "spool").mkdir()
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(place / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_munge(place))
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            log = (place / f"{command[0]}.out").open("wb")
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
        _wait(environment)
        yield environment
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _munge(place: Path) -> subprocess.Popen[bytes]:
    """The daemon that vouches for users, with a key of its own."""
    user, own = pwd.getpwnam("munge"), place / "munge"
    own.mkdir(mode=0o700)
    (own / "key").write_bytes(os.urandom(128))
    (own / "key").chmod(0o600)
    for path in (own, own / "key"):
        os.chown(path, user.pw_uid, user.pw_gid)
    files = [f"--socket={place}/munge.socket", f"--key-file={own}/key", f"--pid-file={own}/pid",
             f"--log-file={own}/log", f"--seed-file={own}/seed"]  # fmt: skip
    place.chmod(0o711)
    os.chown(place, user.pw_uid, user.pw_gid)
    command = [str(shutil.which("munged", path=PATH)), "--foreground", "--force", *files]
    return subprocess.Popen(command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], start_new_session=True)


def _wait(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        found = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        if found.stdout.strip() == "idle":
            return
        assert time.monotonic() < deadline, f"Slurm is not ready: {found.stdout} {found.stderr}"
        time.sleep(0.3)
