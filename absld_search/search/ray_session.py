"""Ray for one start of a study: where it listens, what it may use, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import ray_constants

from absld_search.core.files import cache_folder
from absld_search.search import cluster, interruption, processes, resources
from absld_search.search.plan import Plan

ASK_SECONDS, GONE_SECONDS = 5.0, 20.0  # between two looks at a cluster's head, and until it counts as gone
TOLD = ("ABSLD_CHECKPOINT_SECONDS",)  # what of the driver's environment is meant for trainings wherever they are


@contextmanager
def ray_session(plan: Plan, token: str, stop: interruption.Interruption) -> Iterator[None]:
    """A local Ray, or a place in the cluster at `--address`. SIGTERM ends a run as Ctrl-C does, Ray's end ends it.

    A Ray that this process has already is used, and ended by whoever started it: several studies one after the other.
    """
    if ray.is_initialized():
        yield
        return
    # "local": without a word Ray joins whatever cluster somebody started on this machine.
    address = plan.request.address or "local"
    with _told(token, here_only=address == "local"):
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
        try:
            cluster.join(address, _more(address))
            # Tune ends cleanly on SIGINT and SIGUSR1 but aborts on SIGTERM. It listens from `fit` on: until then, while
            # machines are waited for and prepared, SIGUSR1 would kill the process.
            signal.signal(signal.SIGUSR1, interruption.interrupt)
            signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
            stop.guards.append(_watched(address))
            cluster.require(plan.request)
            yield
        finally:
            stop.guards.clear()
            for number, handler in before.items():
                signal.signal(number, handler)
            ray.shutdown()
            processes.kill_marked(token)  # Ray's agents stay for a minute otherwise


def _more(address: str) -> dict[str, Any]:
    """Of a Ray of ours what it may use, of a cluster what its workers, which do not descend from us, are told."""
    if address == "local":
        return {"include_dashboard": False, "num_cpus": resources.cores()}
    told = {name: os.environ[name] for name in TOLD if name in os.environ}
    return {"runtime_env": {"env_vars": {**resources.ONE_THREAD, **told}}}


def _watched(address: str) -> interruption.Guard:
    """Says when Ray is gone: without its raylet or its head a driver would hang or abort a minute later."""
    if address != "local":
        return Head(ray.get_runtime_context().gcs_address)
    names = ("raylet", "gcs_server")
    own = {pid: name for pid, name in processes.children(os.getpid()).items() if name in names}
    began = {pid: processes.started(pid) for pid in own}

    def gone() -> str:
        dead = [own[pid] for pid in own if processes.started(pid) != began[pid]]
        return f"Ray's {dead[0]} has died." if dead else ""

    return gone


class Head:
    """A guard: says when a cluster's head has not answered for a while. Ray would abort the process a minute later."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = self.heard = time.monotonic()

    def __call__(self) -> str:
        if time.monotonic() - self.asked >= ASK_SECONDS:
            self.asked = time.monotonic()
            if self._answers():
                self.heard = self.asked
        silent = self.asked - self.heard
        return f"Ray's head at {self.address} has not answered for {silent:.0f} s." if silent > GONE_SECONDS else ""

    def _answers(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
        return False


@contextmanager
def _told(token: str, here_only: bool) -> Iterator[None]:
    """What Ray and its workers read in the environment, for one session and not for the next one of this process.

    Without a word Ray's servers listen, on Linux, on every network, also for a Ray that one machine uses. The switch
    is the one by which Ray keeps to the loopback address on the systems that have no clusters; its helpers read it
    from the environment, this process has read it already. Not public: `tests/test_security.py` looks.
    """
    words = {
        "ABSLD_CACHE_DIR": str(cache_folder().absolute()),  # workers start in folders of their own
        processes.MARK: token,  # everything that Ray starts here can be found by it
        "SPT_NOENV": "1",  # or a title that Ray gives a process overwrites the environment in which it stands
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if here_only else "1",
    }
    if here_only:  # between the processes of a training
        words["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, not here_only
    try:
        with processes.told(words):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
