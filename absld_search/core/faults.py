"""Injection points: named moments at which a test lets the process die, an error rise or the disk be full.

`ABSLD_FAULT=checkpoint.before_rename:3` kills this process at its third passing of that point. `:raise` behind it
raises `Injected` instead, `:term` sends this process a SIGTERM, `:enospc` says "no space left on device", and `3+`
means the third passing and every later one. Several faults are separated by commas. Without the variable a point is
one call of a function that returns.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections import Counter
from typing import NamedTuple

from absld_search.words import UsageError, require_known

VARIABLE = "ABSLD_FAULT"
FILES = ("checkpoint", "result", "shard", "student", "tables", "teacher", "file")  # what `core.files` is told to write
STEPS = ("before_write", "before_fsync", "before_rename", "after_rename")
POINTS = (
    *(f"{file}.{step}" for file in FILES for step in STEPS),
    "log.before_write",  # the line of an epoch
    "ledger.before_commit",
    "ledger.after_commit",
    "optuna.after_ask",  # Optuna has drawn, the ledger does not know yet
    "optuna.before_tell",  # the ledger knows, Optuna does not yet
    "lease.before_renewal",
    "worker.epoch",  # its k-th passing is the end of the k-th epoch of this attempt
)
ACTIONS = ("kill", "term", "raise", "enospc")
FAULT = re.compile(r"(?P<point>[a-z._]+):(?P<k>[1-9]\d*)(?P<on>\+?)(:(?P<action>[a-z]+))?")


class Injected(RuntimeError):
    """What a fault with the action `raise` raises."""


class Fault(NamedTuple):
    """At the k-th passing of a point, and at later ones where `on`, do `action`."""

    point: str
    k: int
    on: bool
    action: str


_armed: list[Fault] = []
_passed: Counter[str] = Counter()


def arm(text: str) -> None:
    """Arm what `text` says, and nothing else; all counts begin anew. Raises: UsageError naming what is wrong."""
    _armed[:] = [_fault(part.strip()) for part in text.split(",") if part.strip()]
    _passed.clear()


def at(point: str) -> None:
    """The program passes `point`. Raises: Injected or OSError where a fault says so."""
    if not _armed:
        return
    _passed[point] += 1
    for fault in _armed:
        count = _passed[point]
        if fault.point == point and (count == fault.k or fault.on and count > fault.k):
            _happen(fault)


def _fault(text: str) -> Fault:
    match = FAULT.fullmatch(text)
    if match is None:
        raise UsageError(f"{VARIABLE}: {text!r} must read POINT:K, POINT:K:ACTION or POINT:K+:ACTION.")
    point = require_known(f"{VARIABLE}: point", match["point"], POINTS)
    action = require_known(f"{VARIABLE}: action", match["action"] or "kill", ACTIONS)
    return Fault(point, int(match["k"]), bool(match["on"]), action)


def _happen(fault: Fault) -> None:
    if fault.action in ("kill", "term"):
        os.kill(os.getpid(), signal.SIGKILL if fault.action == "kill" else signal.SIGTERM)
        return
    if fault.action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), fault.point)
    raise Injected(f"{fault.point}, passing {_passed[fault.point]}")


arm(os.environ.get(VARIABLE, ""))
