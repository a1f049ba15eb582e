"""Real Ray nodes on this machine, each a `ray start` of its own, ended by its own process id.

Ray's nodes listen on every network of the machine, as on a cluster; the token is what keeps others out.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from absld_search.search import processes
from tests.cluster.postgres import free_port

START_SECONDS = 180.0
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


class Nodes:
    """A cluster that begins empty: `head`, then `worker` as often as wanted; `kill` any of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.mark = folder, free_port(), f"nodes-{secrets.token_hex(8)}"
        self.token, self.more = secrets.token_hex(32), dict[str, str]()  # more: of the environment
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.temporary = Path("/tmp") / self.mark[-8:]  # a socket's name has room for 107 bytes

    @property
    def address(self) -> str:
        """What goes after `--address`."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What every node and every driver is told: the token, and no telling the world."""
        words = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}
        return {**os.environ, **words, **self.more}

    def head(self, **has: float) -> None:
        """The first node. `has`: cpus and gpus that Ray is told of."""
        words = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.temporary}"]
        self._start("head", words, has)

    def worker(self, name: str, **has: float) -> None:
        """One more node."""
        self._start(name, [f"--address={self.address}"], has)

    def cache(self, name: str) -> Path:
        """The node's own cache folder, as if it were a machine's."""
        return self.folder / f"cache-{name}"

    def _start(self, name: str, words: list[str], has: dict[str, float]) -> None:
        sizes = [f"--num-{kind}={amount:g}" for kind, amount in has.items()]
        log = (self.folder / f"{name}.log").open("wb")
        own = {processes.MARK: self._mark(name), "ABSLD_CACHE_DIR": str(self.cache(name))}
        self.started[name] = subprocess.Popen(
            [*RAY, "start", "--block", *words, *sizes],
            stdout=log, stderr=log, env=self.environment | own, start_new_session=True,
        )  # fmt: skip
        self._wait(name)

    def _wait(self, name: str) -> None:
        """Until it says that it runs."""
        deadline, log = time.monotonic() + START_SECONDS, self.folder / f"{name}.log"
        while b"Ray runtime started" not in log.read_bytes():
            assert self.started[name].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)

    def kill(self, name: str) -> None:
        """As a machine that loses power: everything of the node at once."""
        processes.kill_marked(self._mark(name), seconds=20)
        self.started.pop(name).wait(timeout=30)

    def _mark(self, name: str) -> str:
        return f"{self.mark}-{name}"

    def close(self) -> None:
        for process in self.started.values():
            process.terminate()
        for process in self.started.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        for name in self.started:
            processes.kill_marked(self._mark(name), seconds=20)
        shutil.rmtree(self.temporary, ignore_errors=True)


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """A cluster of nobody yet; all of it is gone afterwards."""
    made = Nodes(folder)
    try:
        yield made
    finally:
        made.close()
