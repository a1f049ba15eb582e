"""`python -m tests.faults.soak --trials 500 --every 30`: one long study, its driver killed again and again.

Every second the driver's memory and open files are written down. At the end every invariant must hold, and what a
driver takes after the same number of seconds must not grow with the study. `--ray` runs the real command; without it
the ledger, the queue and the files alone, which is many times faster. Run again with more trials, it goes on.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from absld_search.search.ledger import FINAL, Ledger
from tests.faults.invariants import check

ROOT = Path(__file__).parents[2]
ALONE = (
    "from pathlib import Path; from tests.faults import fake; fake.drive(fake.study(Path({out!r}), trials={trials}))"
)


@click.command()
@click.option("--trials", default=500, show_default=True)
@click.option("--every", default=30.0, show_default=True, help="Mean seconds between two kills.")
@click.option("--ray", is_flag=True, help="The real command on the digits, one epoch a training.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="An empty folder, or an earlier soak's.")
def main(trials: int, every: float, ray: bool, out: Path) -> None:
    """Kill until done; print one JSON line; exit code 1 where something grew or broke."""
    out.mkdir(parents=True, exist_ok=True)
    line = command(trials, ray, out)
    samples, lives, code, rng = [], 0, None, random.Random(0)
    while code != 0:
        code, seen = live(line, out, rng.uniform(every / 2, every * 3 / 2))
        samples += [(lives, *sample) for sample in seen]
        lives += 1
        assert code in (0, 3, -9), f"the driver ended with {code}"
    found = summary(next(out.glob("*/study.db")).parent, samples, lives)
    click.echo(json.dumps(found))
    sys.exit(not found["whole"])


def command(trials: int, ray: bool, out: Path) -> list[str]:
    """What is run and killed."""
    if ray:
        words = f"-m absld_search.run temperature_lr --smoke --trials {trials} --seeds 2 --set epochs=1 --out"
        return [sys.executable, *shlex.split(words), str(out)]
    return [sys.executable, "-c", ALONE.format(out=str(out), trials=trials)]


def live(line: list[str], out: Path, seconds: float) -> tuple[int, list[tuple[int, int, int]]]:
    """One life of the driver: its exit code, and (second, resident KiB, open files) as long as it lived.

    It is killed `seconds` after it has finished a training, since on a busy machine Ray alone may take longer to start.
    """
    process, seen = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL), []
    before, deadline = finished(out), float("inf")
    while process.poll() is None:
        if deadline == float("inf") and finished(out) > before:
            deadline = time.monotonic() + seconds
        if time.monotonic() > deadline:
            process.kill()
            return process.wait(), seen
        time.sleep(1)
        if (sample := sampled(process.pid)) is not None:
            seen.append((len(seen), *sample))
    return process.returncode, seen


def finished(out: Path) -> int:
    """Trainings that have left their result."""
    return len(list(out.glob("*/trainings/*/result.json")))


def sampled(pid: int) -> tuple[int, int] | None:
    """(resident KiB, open files) of a process; None where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        return resident, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, StopIteration):
        return None


def summary(folder: Path, samples: list[tuple[int, int, int, int]], lives: int) -> dict[str, object]:
    """Numbers of the soak, after every invariant has been looked at."""
    mirror = folder.parent / "mlflow.db"
    check(folder, settled=True, mlflow=mirror if mirror.exists() else None)
    trials = Ledger(f"sqlite:///{folder / 'study.db'}", folder.name).trials()
    ended = sum(trial["state"] in FINAL for trial in trials)
    aged = [sample for sample in samples if sample[1] >= 8]  # imports are over by then
    early = [sample for sample in aged if sample[0] < lives / 3] or aged
    late = [sample for sample in aged if sample[0] >= lives * 2 / 3] or aged
    memory, files = ([statistics.median(sample[k] for sample in part) for part in (early, late)] for k in (2, 3))
    return {
        "trials": len(trials),
        "ended": ended,
        "kills": lives - 1,
        "resident_KiB_first_and_last_third": memory,
        "open_files_first_and_last_third": files,
        "open_files_most": max(sample[3] for sample in samples),
        "database_bytes": (folder / "study.db").stat().st_size,
        "whole": ended == len(trials) and files[1] <= files[0] + 5 and memory[1] <= 1.25 * memory[0],
    }


if __name__ == "__main__":
    main()
