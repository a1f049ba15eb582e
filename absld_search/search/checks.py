"""What `doctor` looks at on a machine: each check gives one line, and what to do where it is not well."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from absld_search.core.files import cache_folder
from absld_search.search import database, listening

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LITTLE, TOO_LITTLE = 10 * 2**30, 2**30  # bytes free
OPEN_FILES = 4096
TORCH_SECONDS = 60
UI_PORT = 5000
STALE_SECONDS = 3600.0  # after which a temporary file is nobody's
TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp")  # as `core.files.replacing` names them
ASK_TORCH = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
found["gpus"] = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
try:
    import torchvision
    found["torchvision"] = torchvision.__version__
except Exception as error:
    found["torchvision_error"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, what to do; and how to put it right where that is safe."""

    name: str
    state: str
    text: str
    remedy: str = ""
    fix: Callable[[], str] | None = None  # returns what it did


def machine(out: Path) -> Iterator[Finding]:
    """Every check that needs no study. Imports neither torch, Ray, Optuna nor MLflow."""
    asked = subprocess.Popen(
        [sys.executable, "-c", ASK_TORCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield _python()
    yield from _packages()
    yield from _places(out)
    yield _file_system(out)
    yield _open_files()
    yield from _ray()
    yield from _network()
    yield _port(UI_PORT)
    yield from stale_files("cache", [cache_folder()])
    yield from _torch(asked)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    state = OK if sys.version_info >= (3, 11) else PROBLEM
    return Finding("python", state, version, "" if state == OK else "use Python 3.11 or newer")


def requirements() -> list[Requirement]:
    """What this project asks for, of its installation or of the source tree it runs from."""
    try:
        lines = metadata.requires("absld_search") or []
    except metadata.PackageNotFoundError:
        file = Path(__file__).parents[2] / "pyproject.toml"
        lines = tomllib.loads(file.read_text())["project"]["dependencies"] if file.exists() else []
    found = [Requirement(line) for line in lines]
    return [each for each in found if not each.marker or each.marker.evaluate({"extra": ""})]


def _packages() -> Iterator[Finding]:
    bad = 0
    for need in requirements():
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            bad += 1
            yield Finding(need.name, PROBLEM, "is not installed", f"pip install '{need}'")
            continue
        if not need.specifier.contains(version, prereleases=True):
            bad += 1
            yield Finding(need.name, PROBLEM, f"{version} is not {need.specifier}", f"pip install '{need}'")
    if not bad:
        shown = ", ".join(f"{name} {_version(name)}" for name in ("torch", "ray", "optuna", "mlflow"))
        yield Finding("packages", OK, f"{len(requirements())} as asked for, among them {shown}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _torch(asked: subprocess.Popen[str]) -> Iterator[Finding]:
    """What torch says of itself, in a process of its own: a broken torchvision can take its importer with it."""
    try:
        out, err = asked.communicate(timeout=TORCH_SECONDS)
        found = json.loads(out)
    except (subprocess.TimeoutExpired, ValueError):
        asked.kill()
        last = (asked.communicate()[1] or "no answer").strip().splitlines()[-1:]
        yield Finding("torch", PROBLEM, f"cannot be imported: {' '.join(last)}", "install torch again")
        return
    if "torchvision_error" in found:
        yield Finding(
            "torchvision", WARNING, f"does not fit torch {found['torch']}: {found['torchvision_error']}",
            "only --download needs it; install both at once, from one index, so that they fit",
        )  # fmt: skip
    else:
        yield Finding("torchvision", OK, f"{found['torchvision']} fits torch {found['torch']}")
    yield _gpus(found["gpus"], found["cuda"])


def _gpus(gpus: list[str], cuda: str | None) -> Finding:
    driver = Path("/proc/driver/nvidia/version")
    if gpus:
        return Finding("gpu", OK, f"{len(gpus)} x {gpus[0]}, torch for CUDA {cuda}")
    if driver.exists():
        remedy = "install a torch for CUDA" if cuda is None else "update the driver, or look at CUDA_VISIBLE_DEVICES"
        return Finding("gpu", PROBLEM, f"there is a driver, but torch (CUDA {cuda}) sees no GPU", remedy)
    return Finding("gpu", OK, "none: workloads for a CPU only (--list-workloads)")


def _places(out: Path) -> Iterator[Finding]:
    for name, folder in (("out", out), ("cache", cache_folder()), ("tmp", Path(tempfile.gettempdir()))):
        place = folder.absolute()
        while not place.exists():
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Finding(f"{name} folder", PROBLEM, f"{place}: {error.strerror}", "name another folder")
            continue
        free = shutil.disk_usage(place).free
        state = PROBLEM if free < TOO_LITTLE else WARNING if free < LITTLE else OK
        text = f"{folder} can be written, {free / 2**30:.0f} GiB free"
        yield Finding(f"{name} folder", state, text, "" if state == OK else "make room: a full disk pauses a study")


def _file_system(out: Path) -> Finding:
    kind = database.network_file_system(out)
    if kind:
        return Finding("out file system", WARNING, f"{out} is on {kind}: SQLite can't trust its locks",
                       "another --out, or --storage postgresql://...")  # fmt: skip
    return Finding("out file system", OK, f"{out} is on a disk of this machine")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= OPEN_FILES or soft == resource.RLIM_INFINITY:
        return Finding("open files", OK, f"{soft} allowed")
    return Finding("open files", WARNING, f"{soft} allowed; Ray may want more", f"ulimit -n {min(hard, 65536)}")


def token_file() -> Path:
    """Where Ray keeps the token of its clusters."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _ray() -> Iterator[Finding]:
    mode, file = os.environ.get("RAY_AUTH_MODE", "not set"), token_file()
    if mode == "disabled":
        yield Finding("ray token", WARNING, "RAY_AUTH_MODE=disabled: whoever reaches Ray's ports runs code as you",
                      "unset it")  # fmt: skip
    elif "RAY_AUTH_TOKEN" in os.environ or not file.exists():
        yield Finding("ray token", OK, f"none in {file} (RAY_AUTH_MODE {mode})")
    elif file.stat().st_mode & 0o077:
        yield Finding("ray token", PROBLEM, f"{file} can be read by others: with it they run code as you",
                      f"chmod 600 {file}", lambda: tighten(file, 0o600))  # fmt: skip
    else:
        yield Finding("ray token", OK, f"{file} is yours alone (RAY_AUTH_MODE {mode})")
    left = listening.orphans(listening.commands())
    if left:
        yield Finding("ray processes", WARNING, f"servers without a driver: {', '.join(map(str, left))}",
                      "where no `ray start` began them, end them with kill")  # fmt: skip
    else:
        yield Finding("ray processes", OK, "none without a driver")


def _network() -> Iterator[Finding]:
    if not listening.known():
        yield Finding("network", WARNING, "not looked at: this system has no /proc/net/tcp")
        return
    ours = {pid: line for pid, line in listening.commands().items() if listening.OURS.search(line)}
    exposed = [one for one in listening.listeners(ours) if not one.loopback]
    for one in exposed:
        who = f"{one.command.split(' ')[0].rpartition('/')[2]} (process {one.pid})"
        yield Finding("network", WARNING, f"{who} listens on {one.address}:{one.port}, which others may reach",
                      "behind a firewall only; docs/security.md")  # fmt: skip
    if not exposed:
        yield Finding("network", OK, "nothing of ours, Ray's or MLflow's listens beyond this machine")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding("ui port", OK, f"{port} is taken: `absld_search.ui` takes the next free one")
    return Finding("ui port", OK, f"{port} is free")


def tighten(path: Path, mode: int) -> str:
    """Take everything from `path`'s mode that is not in `mode`."""
    path.chmod(stat.S_IMODE(path.stat().st_mode) & mode)
    return f"{path.name} is yours alone now"


def stale_files(name: str, folders: list[Path]) -> Iterator[Finding]:
    """Temporary files whose writer has gone."""
    found = [path for folder in folders if folder.is_dir() for path in folder.rglob(".*.tmp") if _is_stale(path)]
    if not found:
        yield Finding(f"{name}: temporary files", OK, "none left over")
        return

    def remove() -> str:
        for path in found:
            path.unlink(missing_ok=True)
        return f"removed {len(found)}"

    yield Finding(f"{name}: temporary files", WARNING, f"{len(found)} left by killed processes, {found[0].name} first",
                  "--fix removes them", remove)  # fmt: skip


def _is_stale(path: Path) -> bool:
    """Old, and of a process that this machine does not have; another machine may write into a shared folder."""
    match = TEMPORARY.fullmatch(path.name)
    if match is None or not path.is_file():
        return False
    return time.time() - path.stat().st_mtime > STALE_SECONDS and not Path(f"/proc/{match[2]}").exists()
