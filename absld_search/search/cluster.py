"""The machines that Ray has: joining them, what they can carry, and a refusal where a training fits on none."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from absld_search.search import processes, resources
from absld_search.search.plan import Request
from absld_search.words import UsageError, counted

Node = Mapping[str, float]  # {"CPU": ..., "GPU": ...} of one machine, all of it, used or not
LOOK_SECONDS = 1.0
# How often a cluster's head is tried, about 40 s each where it hangs; without a word Ray tries twenty times.
TRIES = {"RAY_gcs_server_port_wait_time_s": "3"}


def join(address: str, more: Mapping[str, Any]) -> None:
    """Start Ray on this machine ("local") or take part in the cluster at `address`. Raises: UsageError."""
    try:
        # This process, whose libraries are loaded, stays as it is.
        with _own_sigterm(), processes.told({**resources.ONE_THREAD, **_tries(address)}):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **more)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise UsageError(f"--address {address}: {error}{_perhaps(address)}") from None
    except OSError as error:  # a socket's name has room for 107 bytes
        if "AF_UNIX" not in str(error):
            raise
        raise UsageError(f"TMPDIR: its name is too long for Ray's sockets ({error}).") from None


def _perhaps(address: str) -> str:
    """What it usually is, where a Ray was to be there."""
    if address == "local":
        return ""
    found = " If a Ray is there, its token is another: RAY_AUTH_MODE and RAY_AUTH_TOKEN are the same on every machine."
    return found + (" `auto` may have met another Ray of this machine: give HOST:PORT." if address == "auto" else "")


def _tries(address: str) -> Mapping[str, str]:
    """A Ray that is only being started takes its time, and a person's own word counts."""
    return {} if address == "local" else {name: os.environ.get(name, TRIES[name]) for name in TRIES}


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray ends a process that is sent SIGTERM with exit code 15; it stays the interruption that it was."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # by Ray's handler
        raise KeyboardInterrupt from None
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def is_joined(request: Request) -> bool:
    """Whether a request means a cluster, and not this machine alone."""
    return request.address not in (None, "", "local")


def nodes() -> list[Node]:
    """What each machine that is alive has."""
    return [found["Resources"] for found in ray.nodes() if found["Alive"]]


def look(request: Request) -> None:
    """Join for a moment, so that a request which the cluster cannot serve is refused before anything is made.

    Raises: UsageError.
    """
    if ray.is_initialized():
        return require(request)
    join(request.address or "local", {})
    try:
        require(request)
    finally:
        ray.shutdown()


def require(request: Request) -> None:
    """Ray would wait for ever, in silence, for machines that nobody has. Raises: UsageError saying what was seen.

    A cluster that grows when it is asked to gets `--wait-for-nodes` seconds, and is asked. What was asked is withdrawn
    at the end: machines would be kept for ever. Trainings that wait for a place hold them from then on.
    """
    if not request.wait_for_nodes or not refusal(request, nodes()):
        return _wait(request)
    request_resources(bundles=resources.bundles(request))
    try:
        _wait(request)
    finally:
        request_resources(bundles=[])


def _wait(request: Request) -> None:
    until = time.monotonic() + request.wait_for_nodes
    while reason := refusal(request, nodes()):
        if time.monotonic() >= until:
            raise UsageError(reason)
        time.sleep(LOOK_SECONDS)


def refusal(request: Request, there: Sequence[Node]) -> str:
    """Why these machines can never run one training of this request; empty where they can.

    Each process of a training must fit on one machine; the processes of one may lie on several.
    """
    bundles = resources.bundles(request)
    one, needed = bundles[0], len(bundles)
    if needed == 1:
        for name, asked in one.items():
            if asked > max((node.get(name, 0) for node in there), default=0):
                return f"--{name.lower()}s-per-trial {asked:g}: {_said(there)}."
    if sum(resources.fits(one, node) for node in there) < needed:
        each = " and ".join(f"{amount:g} {name}s" for name, amount in one.items() if amount)
        return f"a training of {needed} process{'es' * (needed > 1)} with {each} each does not fit: {_said(there)}."
    return ""


def _said(there: Iterable[Node]) -> str:
    """`Ray sees 2 nodes (4 CPUs, 1 GPU; 8 CPUs, 0 GPUs)`."""
    each = [", ".join(counted(node.get(name, 0), name) for name in ("CPU", "GPU")) for node in there]
    return f"Ray sees {counted(len(each), 'node')} ({'; '.join(each)})"
