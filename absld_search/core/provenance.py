"""Where a training was computed: what another machine has to match before it can be expected to give the same bits."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from absld_search import __version__

PACKAGES = ("torch", "numpy", "pyautoattack", "scikit-learn", "safetensors", "pyarrow")  # that numbers pass through
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS repeats its sums only with one of two sizes of its workspace
SOURCE = Path(__file__).parents[2]


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and source of this process. `revision`: of the checkout this runs from, None where installed;
    `modified`: whether its tracked files differ from that."""
    revision, modified = _source()
    return {
        "absld_search": __version__,
        "revision": revision,
        "modified": modified,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
    }


@contextmanager
def repeatable(asked: bool, device: str) -> Iterator[None]:
    """Inside, where `asked`, torch uses only operations that give the same bits every time on this machine.

    An operation that has no such form raises RuntimeError, which names it. On a CPU with one thread all that a
    training uses repeat anyway.
    """
    if not asked:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if device.startswith("cuda"):
        os.environ.setdefault(WORKSPACE, ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@lru_cache
def _source() -> tuple[str | None, bool | None]:
    """Revision of the checkout and whether it was modified; (None, None) where these files are no checkout's own."""
    try:
        # A virtual environment may lie inside somebody's repository, whose revision says nothing of ours.
        _git("ls-files", "--error-unmatch", "absld_search/__init__.py")
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(*words: str) -> str:
    line = ["git", "-C", str(SOURCE), *words]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def _processor() -> str:
    """The CPU's name where the system tells it: other instructions round other sums."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
