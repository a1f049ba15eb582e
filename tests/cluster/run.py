"""`make cluster-test`: a study over two Ray nodes with PostgreSQL, an object store and an MLflow server, all real.

    python -m tests.cluster.run

One node is killed in the middle, the head later; after each the same command is given again until it ends with 0. Each
node has a cache of its own, so what lies there tells who worked. At the end the invariants of `tests/faults/invariants`
hold, and what was started here listens on loopback alone, except where Ray's nodes and the driver's Ray wait for each
other, who ask for their token.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from absld_search.search import listening
from absld_search.search.ledger import COMPLETE, Ledger
from tests.cluster import objects, postgres
from tests.cluster.nodes import Nodes, nodes
from tests.faults.invariants import check

ROOT = Path(__file__).parents[2]
STUDY, PATIENCE = "cluster", 900.0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Its URL; what it stores lies in the folder."""
    port = postgres.free_port()
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *words], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


class Cluster:
    """All servers, and the one command."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.out = folder, folder / "runs"
        self.storage = stack.enter_context(postgres.server(folder))
        self.store = stack.enter_context(objects.server(folder))
        self.tracking = stack.enter_context(mlflow_server(folder))
        self.nodes: Nodes = stack.enter_context(nodes(folder))
        self.nodes.more |= objects.KEYS

    def start(self) -> None:
        """A head and a worker, each with a cache of its own."""
        self.nodes.head(cpus=1)
        self.nodes.worker("worker", cpus=1)

    def command(self) -> subprocess.Popen[bytes]:
        words = ["ablation_dual_temps", "--smoke", "--study", STUDY, "--out", str(self.out), "--store", self.store]
        words += ["--storage", self.storage, "--tracking-uri", self.tracking, "--address", self.nodes.address]
        log = (self.folder / "driver.log").open("ab")
        return subprocess.Popen([sys.executable, "-m", "absld_search.run", *words], cwd=ROOT, stdout=log, stderr=log,
                                env=self.nodes.environment)  # fmt: skip

    def done(self) -> int:
        """Trainings that are complete."""
        try:
            return len(Ledger(self.storage, STUDY).trainings(state=COMPLETE))
        except Exception:  # no tables yet
            return 0

    def until(self, count: int, driver: subprocess.Popen[bytes]) -> None:
        """Until so many trainings are complete; the driver must live that long."""
        deadline = time.monotonic() + PATIENCE
        while self.done() < count:
            assert driver.poll() is None, (self.folder / "driver.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "driver.log").read_text()
            time.sleep(0.5)


def open_doors(driver: int) -> list[str]:
    """What of this process's listens beyond loopback, and is neither a Ray node nor the driver's one port of Ray."""
    found = [one for one in listening.listeners(listening.family(os.getpid())) if not one.loopback]
    rays = [one for one in found if one.pid == driver][:1]  # where Ray's workers report to it
    others = [one for one in found if "ray" not in one.command and one not in rays]
    return [f"{one.address}:{one.port} {one.command[:80]}" for one in others]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cluster-") as name, ExitStack() as stack:
        cluster = Cluster(Path(name), stack)
        cluster.start()
        driver = cluster.command()
        cluster.until(3, driver)
        assert not open_doors(driver.pid), open_doors(driver.pid)
        cluster.nodes.kill("worker")
        cluster.until(5, driver)
        cluster.nodes.kill("head")
        code = driver.wait(timeout=PATIENCE)
        print(f"the driver ended with {code} when the head was killed", flush=True)
        assert code == 75, (cluster.folder / "driver.log").read_text()
        cluster.start()
        code = cluster.command().wait(timeout=PATIENCE)
        assert code == 0, (cluster.folder / "driver.log").read_text()
        check(cluster.out / STUDY, settled=True, url=cluster.storage, mlflow=cluster.folder / "mlflow.db")
        worked = {
            node: sum(path.is_file() for path in (cluster.nodes.cache(node) / "logits").rglob("*"))
            for node in ("head", "worker")
        }
        print(f"{cluster.done()} trainings complete; blocks of logits in each node's cache: {worked}")
        assert all(worked.values()), worked


if __name__ == "__main__":
    main()
