"""Rounds of faults that need no Ray: each is a function of its number, forks real processes, and raises where an
invariant breaks. `python -m tests.faults.run K1 --rounds 300` runs them; the tests run a few."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from absld_search.core import checkpoints, faults
from absld_search.search import ownership
from absld_search.search.halving import epochs_of
from absld_search.search.ledger import COMPLETE, INFEASIBLE, Ledger
from absld_search.search.plan import Plan
from absld_search.search.queue import CONFIRM, Queue
from tests.faults import fake
from tests.faults.invariants import check

torch.set_num_threads(1)  # a child forked after OpenMP's threads have started waits for them for ever

HELD, KILLED, CRASHED = 4, -signal.SIGKILL, 1
POINTS = [
    *(f"checkpoint.{step}" for step in faults.STEPS),
    *(f"shard.{step}" for step in faults.STEPS),
    *(f"result.{step}" for step in faults.STEPS),
    *(f"tables.{step}" for step in faults.STEPS),
    *("ledger.before_commit", "ledger.after_commit", "optuna.after_ask", "optuna.before_tell"),
    *("log.before_write", "worker.epoch"),
]


def fork(work: Callable[[], None]) -> int:
    """The pid of a child that does `work` and ends: 0, 4 where the study is held, 1 with a traceback otherwise."""
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        os.setpgid(0, 0)
        work()
    except ownership.Held:
        code = HELD
    except BaseException:
        traceback.print_exc()
        code = CRASHED
    os._exit(code)


def ended(pid: int, seconds: float | None = None) -> int:
    """A child's exit code; one that has not ended after `seconds` is killed first, -9 then."""
    deadline = time.monotonic() + (300 if seconds is None else seconds)
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert seconds is not None, "a driver that nobody disturbed did not end within five minutes"
    return code


def k1(out: Path, number: int) -> int:
    """Kill the driver by the clock (even numbers) or at a named point (odd); start again until done. The kills."""
    made = fake.study(out)
    kills = _killed_until_done(made, number)
    _whole(made.folder, kills)
    return kills


def k1_rungs(out: Path, number: int) -> int:
    """K1 of a study with rungs, a race and a constraint."""
    made = fake.study(out, **fake.STAGES)
    kills = _killed_until_done(made, number, most=30, seconds=3.0)
    _trained_once(made.folder, kills)
    _nothing_is_left(made)
    return kills


def _killed_until_done(made: Plan, number: int, most: int = 6, seconds: float = 1.5) -> int:
    """Three starts that are killed, at a point's passing up to `most` or within `seconds`, then starts to the end."""
    rng, kills = random.Random(number), 0
    for attempt in range(100):
        point = f"{rng.choice(POINTS)}:{rng.randint(1, most)}" if number % 2 and attempt < 3 else ""
        delay = rng.uniform(0, seconds) if number % 2 == 0 and attempt < 3 else None

        def work(point: str = point) -> None:
            faults.arm(point)
            fake.drive(made)

        code = ended(fork(work), delay)
        if (made.folder / "study.db").exists():
            check(made.folder, settled=code == 0)
        if code == 0 and attempt >= 3:
            return kills
        kills += code == KILLED
        assert code in (0, KILLED), f"exit code {code}"
    raise AssertionError("not done after a hundred starts")


def _nothing_is_left(made: Plan) -> None:
    """Each arm has all its trials, one that was trained to its end at least, and its choice's fresh seeds."""
    ledger = Ledger(made.request.storage, made.request.study)
    for arm in made.arms:
        trials = ledger.trials(arm=arm.name)
        assert len(trials) == arm.trials and {trial["state"] for trial in trials} & {COMPLETE, INFEASIBLE}
        feasible = [trial for trial in trials if trial["state"] == COMPLETE]
        fresh = [ledger.trainings(config=trial["config"], stage=CONFIRM) for trial in trials if trial["confirmed"]]
        assert bool(fresh) == bool(feasible), f"{arm.name}: a choice without fresh seeds, or the other way round"
        assert all(len(rows) == made.request.seeds for rows in fresh)
    before = {row["training"] for row in ledger.trainings()}
    assert not Queue(made, ledger).ready(), "there was something left to do"
    assert {row["training"] for row in ledger.trainings()} == before
    ledger.engine.dispose()


def _whole(folder: Path, kills: int) -> None:
    """Exactly the trainings that were asked for, each trained once."""
    _trained_once(folder, kills)
    assert len(fake.marks(folder)) == fake.TRAININGS


def _trained_once(folder: Path, kills: int) -> None:
    """Every training complete and trained once, but for the epoch that a kill cut off."""
    ledger = Ledger(f"sqlite:///{folder / 'study.db'}", folder.name)
    trainings = {row["training"]: row for row in ledger.trainings()}
    assert {row["state"] for row in trainings.values()} == {COMPLETE}, trainings
    epochs = fake.marks(folder)
    assert set(epochs) == set(trainings)
    again = 0
    for key, seen in epochs.items():
        assert sorted(set(seen)) == list(range(1, epochs_of(trainings[key]) + 1)), (key, seen)
        assert seen == sorted(seen), f"{key} went back: {seen}"
        again += len(seen) - len(set(seen))
    assert again <= kills, f"{again} epochs were repeated after {kills} kills"
    ledger.engine.dispose()


def k7(out: Path, number: int) -> int:
    """Kill inside a checkpoint write: what is read afterwards is the newest that was whole. The kills: 1."""
    rng, k = random.Random(number), random.Random(number).randint(2, 6)
    step = faults.STEPS[number % len(faults.STEPS)]
    size = rng.choice((10, 10_000, 300_000))

    def work() -> None:
        faults.arm(f"checkpoint.{step}:{k}" if number % 2 else "")
        for epoch in range(1, 10_000):
            checkpoints.save(out, epoch, {"epoch": epoch, "weights": torch.full((size,), float(epoch))})
            (out / "saved").write_text(str(epoch))

    out.mkdir(parents=True, exist_ok=True)
    assert ended(fork(work), None if number % 2 else rng.uniform(0.005, 0.15)) == KILLED
    saved = int(text) if (out / "saved").exists() and (text := (out / "saved").read_text()) else 0
    state = checkpoints.newest(out, _refuse)
    assert len(list(out.glob(".*.tmp"))) <= 1
    if number % 2:
        assert saved == k - 1
        assert state is not None and state["epoch"] == (k if step == "after_rename" else k - 1)
    elif state is not None:
        assert saved <= state["epoch"] <= saved + 1 or saved == 0
        assert torch.equal(state["weights"], torch.full((size,), float(state["epoch"])))
    return 1


def _refuse(line: str) -> None:
    raise AssertionError(f"a kill damaged a checkpoint: {line}")


def s4(out: Path, number: int) -> int:
    """Two drivers within 0 to 5 s of each other; every third time the first is killed and a third one comes."""
    rng, made = random.Random(number), fake.study(out)
    seconds = rng.uniform(0.0, 0.1)

    def work() -> None:
        fake.drive(made, seconds=seconds)

    first = fork(work)
    time.sleep(rng.uniform(0, 5) if number % 2 else rng.uniform(0, 0.5))
    second, kills = fork(work), 0
    if number % 3 == 0:
        time.sleep(rng.uniform(0, 0.5))
        kills += ended(first, 0.0) == KILLED
        codes = [ended(second), ended(fork(work))]
    else:
        codes = [ended(first), ended(second)]
    assert set(codes) <= {0, HELD}, codes
    assert codes.count(0) >= 1 or kills, codes
    check(made.folder, settled=True)
    _whole(made.folder, kills)
    return 1


def s4_apart(out: Path, number: int) -> int:
    """The same with a folder each and one database: only the lease stands between them."""
    rng = random.Random(number)
    one, two = fake.study(out / "one"), fake.study(out / "two", storage=fake.study(out / "one").request.storage)
    first = fork(lambda: fake.drive(one, seconds=0.05))
    time.sleep(rng.uniform(0, 0.4))
    codes = [ended(fork(lambda: fake.drive(two, seconds=0.05))), ended(first)]
    assert sorted(codes) == [0, HELD], codes
    worked = [made.folder for made in (one, two) if fake.marks(made.folder)]
    assert len(worked) == 1, "both trained"
    _whole_in(worked[0], out / "one" / "study" / "study.db")
    return 1


def _whole_in(folder: Path, database: Path) -> None:
    ledger = Ledger(f"sqlite:///{database}", folder.name)
    assert [row["state"] for row in ledger.trainings()] == [COMPLETE] * fake.TRAININGS
    ledger.engine.dispose()


ROUNDS: dict[str, Callable[[Path, int], int]] = {
    "K1": k1,
    "K1-rungs": k1_rungs,
    "K7": k7,
    "S4": s4,
    "S4-apart": s4_apart,
}


def play(name: str, number: int, place: Path) -> int:
    """One round in a folder of its own, which is kept only where the round fails."""
    out = place / f"{name}-{number}"
    out.mkdir(parents=True)
    injected = ROUNDS[name](out, number)
    shutil.rmtree(out)
    return injected
