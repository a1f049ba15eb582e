"""Rounds of faults on the real command, with Ray and training: a minute or two each. The same shape as `rounds`."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from absld_search.core import results
from absld_search.search import processes
from absld_search.search.interruption import STOPPING
from absld_search.search.ledger import COMPLETE, Ledger
from tests.faults.invariants import check
from tests.test_kill import ROOT, lines, marked

STUDY, EPOCHS = "temperature_lr-digits-smoke", 20
WORDS = ["temperature_lr", "--smoke", "--trials", "2", "--seeds", "1", "--set", f"epochs={EPOCHS}"]
TRAININGS = 2 + 1 + 2  # two arms, one of them with nothing to tune; each one's choice with a fresh seed
INTERRUPTED, AT_ONCE = 75, 130
AWAY_SECONDS = 60  # for which MLflow's server is dead
PATIENCE = 900  # seconds: rounds are played on busy machines too


class Driver:
    """One start of the command, in a process group of its own."""

    def __init__(self, out: Path, fault: str = "", words: Sequence[str] = WORDS, **more: str) -> None:
        """`more`: variables of its environment."""
        self.out, self.log = out, out.parent / f"{out.name}.log"
        self.before = self.log.stat().st_size if self.log.exists() else 0  # what earlier starts said
        variables = {"ABSLD_CHECKPOINT_SECONDS": "0", "ABSLD_TEST_MARK": str(out), "ABSLD_FAULT": fault, **more}
        line = [sys.executable, "-m", "absld_search.run", *words, "--out", str(out)]
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                line,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until(self, condition: Callable[[], object]) -> bool:
        """Whether the condition came true before the process ended."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def training(self) -> bool:
        """Wait until Ray's workers are there and a training is well under way."""
        return self.until(lambda: running(self.out) and pids(self.out, "ray::ImplicitFunc"))

    def ended(self) -> int:
        return self.process.wait(timeout=PATIENCE)

    def said(self) -> str:
        return self.log.read_bytes()[self.before :].decode(errors="replace")


@contextmanager
def driver(out: Path, fault: str = "", words: Sequence[str] = WORDS, **more: str) -> Iterator[Driver]:
    """A start that is ended with everything it started, whatever the test does."""
    with swept(out):
        started = Driver(out, fault, words, **more)
        try:
            yield started
        finally:
            _kill([started.process.pid])
            started.process.wait()


@contextmanager
def swept(out: Path) -> Iterator[None]:
    """Nothing of a driver in `out` lives on."""
    try:
        yield
    finally:
        _kill(pids(out))


def _kill(found: list[int]) -> None:
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids(out: Path, name: str = "") -> list[int]:
    """Living processes of a driver whose command line begins with, or whose program is, `name`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"ABSLD_TEST_MARK={out}".encode() in (process / "environ").read_bytes().split(b"\0"):
                first = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
                if name in first and processes.started(int(process.name)) is not None:
                    found.append(int(process.name))
    return found


def running(out: Path) -> list[str]:
    """Trainings that are well under way."""
    found = {key: epochs for key, epochs in lines(out).items() if 2 < len(epochs) < EPOCHS - 5}
    return [key for key in found if not list(out.glob(f"*/trainings/{key}/result.json"))]


def alone(out: Path) -> None:
    """Nothing of a driver lives on."""
    deadline = time.monotonic() + 60
    while (left := marked(out)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, left


def until_done(out: Path, kills: int) -> None:
    """Run the command again until it is done; every invariant, and at most an epoch lost per kill and training."""
    with driver(out) as last:
        code = last.ended()
        assert code == 0, f"{code}\n{last.said()[-3000:]}"
    check(out / STUDY, settled=True, mlflow=out / "mlflow.db")
    ledger = Ledger(f"sqlite:///{out / STUDY / 'study.db'}", STUDY)
    assert [row["state"] for row in ledger.trainings()] == [COMPLETE] * TRAININGS
    assert set(results.load(out / STUDY).trainings["state"].to_pylist()) == {COMPLETE}
    for training, epochs in lines(out).items():
        counts = Counter(epochs)
        assert set(counts) == set(range(1, EPOCHS + 1)), training
        # The last epoch is logged once more when its evaluation is added.
        assert sum(counts.values()) <= EPOCHS + 1 + kills, (training, counts)
    ledger.engine.dispose()
    alone(out)


def k2(out: Path, number: int) -> int:
    """SIGKILL of the driver, four times: amid a training, or (a third of them) by the clock, while it starts.

    Every other time its orphans, Ray's servers and workers amid an epoch, are left to the next start.
    """
    rng, kills = random.Random(number), 0
    with swept(out):
        for turn in range(4):
            one = Driver(out)
            if rng.random() < 2 / 3:
                one.training()
                time.sleep(rng.uniform(0, 3))
            else:
                time.sleep(rng.uniform(0, 20))
            if one.process.poll() is None:
                one.process.kill()
                kills += 1
            one.ended()
            if turn % 2:
                _kill(pids(out))
                if (out / STUDY / "study.db").exists():
                    check(out / STUDY, settled=False)
        return kills


def k3(out: Path, number: int) -> int:
    """SIGTERM, to the driver alone (even) or to its whole process group (odd)."""
    with driver(out) as one:
        assert one.training(), one.said()[-3000:]
        began = time.monotonic()
        (os.killpg if number % 2 else os.kill)(one.process.pid, signal.SIGTERM)
        code = one.ended()
        seconds = time.monotonic() - began
        assert code == INTERRUPTED, f"{code}\n{one.said()[-3000:]}"
        assert "ame command again" in one.said() and "Traceback" not in one.said(), one.said()[-3000:]
        alone(out)
    check(out / STUDY, settled=False)
    return _timed("SIGTERM", seconds)


def k4(out: Path, number: int) -> int:
    """SIGINT, twice: an end at once, and everything can go on."""
    with driver(out) as one:
        assert one.training(), one.said()[-3000:]
        one.process.send_signal(signal.SIGINT)
        one.until(lambda: STOPPING in one.said())  # two that come before the first is seen are one
        one.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        code = one.ended()
        seconds = time.monotonic() - began
        assert code == AT_ONCE, f"{code}\n{one.said()[-3000:]}"
        alone(out)
    check(out / STUDY, settled=False)
    return _timed("SIGINT twice", seconds)


def k5(out: Path, number: int) -> int:
    """SIGKILL of workers: of all by their pids, twice (even), or at the end of the k-th epoch of each, before anything
    is kept (odd)."""
    rng = random.Random(number)
    with driver(out, f"worker.epoch:{rng.randint(11, EPOCHS - 2)}" if number % 2 else "") as one:
        for _ in range(0 if number % 2 else 2):  # a third loss would end a training for this start
            if not one.training():
                break
            time.sleep(rng.uniform(0, 2))
            _kill(pids(out, "ray::ImplicitFunc"))
        code = one.ended()
        assert "its worker died (attempt 1); it is tried again" in one.said(), one.said()[-3000:]
        # A process that has trained something else dies earlier, so a training may use up a start's three attempts.
        assert code == 0 or (code == INTERRUPTED and "(attempt 3)" in one.said()), f"{code}\n{one.said()[-3000:]}"
    if code:
        with driver(out) as again:
            assert again.ended() == 0, again.said()[-3000:]
    ledger = Ledger(f"sqlite:///{out / STUDY / 'study.db'}", STUDY)
    losses = [row["losses"] for row in ledger.trainings()]
    assert all(row["attempts"] == row["losses"] + 1 for row in ledger.trainings()), losses
    ledger.engine.dispose()
    return sum(losses)


def k6(out: Path, number: int) -> int:
    """SIGKILL of Ray's raylet or head: the driver says so, 75."""
    name = ("raylet", "gcs_server")[number % 2]
    with driver(out) as one:
        assert one.training(), one.said()[-3000:]
        (pid, *_) = pids(out, name)
        os.kill(pid, signal.SIGKILL)
        code = one.ended()
        assert code == INTERRUPTED, f"{code}\n{one.said()[-3000:]}"
        alone(out)
    check(out / STUDY, settled=False)
    return 1


FULL_AT = tuple(f"{what}.before_write" for what in ("checkpoint", "log", "shard", "tables")) + ("ledger.before_commit",)


def d1(out: Path, number: int) -> int:
    """A full disk: where a checkpoint is written, a result, the log, the ledger, the tables."""
    point = FULL_AT[number % len(FULL_AT)]
    with driver(out, f"{point}:{random.Random(number).randint(3, 8)}+:enospc") as one:
        code = one.ended()
        assert code == INTERRUPTED, f"{point}: {code}\n{one.said()[-3000:]}"
        assert "the disk is full" in one.said() and "Traceback" not in one.said(), f"{point}\n{one.said()[-3000:]}"
        alone(out)
    check(out / STUDY, settled=False)
    ledger = Ledger(f"sqlite:///{out / STUDY / 'study.db'}", STUDY)
    assert {row["losses"] for row in ledger.trainings()} <= {0}, "a full disk is nobody's failure"
    ledger.engine.dispose()
    return 1


def s4_ray(out: Path, number: int) -> int:
    """Two drivers of the real command within 0 to 5 s of each other."""
    with driver(out) as one:
        time.sleep(random.Random(number).uniform(0, 5))
        with driver_beside(out) as two:
            codes = sorted([one.ended(), two.wait(timeout=PATIENCE)])
    assert codes == [0, 4], f"{codes}\n{one.said()[-3000:]}"
    return 1


def p2(out: Path, number: int) -> int:
    """A real MLflow server killed for a minute amid trainings: they go on, and afterwards it has every point once."""
    from tests.search.test_mirroring import mlflow_server

    place = out.parent / "server"
    place.mkdir()
    words = ["temperature_lr", "--smoke", "--trials", "4", "--seeds", "2", "--set", "epochs=40"]
    with mlflow_server(place) as server, driver(out, words=words, MLFLOW_TRACKING_URI=server.uri) as one:
        assert one.training(), one.said()[-3000:]
        time.sleep(random.Random(number).uniform(0, 5))
        server.kill()
        before = sum(map(len, lines(out).values()))
        time.sleep(AWAY_SECONDS)
        after = sum(map(len, lines(out).values()))
        server.process = server.start()
        assert one.ended() == 0, one.said()[-3000:]
        for word in ("is away; the study goes on", "answers again and is up to date"):
            assert word in one.said(), one.said()[-3000:]
        assert after > before, "training waited for MLflow"
        check(out / STUDY, settled=True, mlflow=place / "mlflow.db")
    print(f"MLflow away for {AWAY_SECONDS} s: {after - before} epochs meanwhile", file=sys.stderr)
    return 1


def one_after_another(out: Path, number: int) -> int:
    """Every way to end before the time on one study: cheap enough for every change."""
    return k6(out, 0) + k4(out, number) + k3(out, 1) + d1(out, 0)


@contextmanager
def driver_beside(out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The same command once more."""
    started = Driver(out).process
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def _timed(what: str, seconds: float) -> int:
    print(f"{what}: over after {seconds:.1f} s", file=sys.stderr)
    return 1


ROUNDS: dict[str, Callable[[Path, int], int]] = {
    "K2": k2,
    "K3": k3,
    "K4": k4,
    "K5": k5,
    "K6": k6,
    "D1": d1,
    "S4-ray": s4_ray,
    "P2": p2,
    "ALL": one_after_another,
}
TO_THE_END = ("P2",)  # rounds that look at their study themselves, and need no other start


def play(name: str, number: int, place: Path) -> int:
    """One round in a folder of its own, which is kept only where the round fails."""
    place = place / f"{name}-{number}"
    place.mkdir(parents=True)
    injected = ROUNDS[name](place / "runs", number)
    if name not in TO_THE_END:
        until_done(place / "runs", injected)
    shutil.rmtree(place)
    return injected
