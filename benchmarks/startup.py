"""What a person waits for before anything is trained: imports, --list, --dry-run, Ray and its first worker.

    python -m benchmarks.startup [--short]

Each line is a process of its own, wall-clock time, the median of several; the first run, which fills the file cache, is
left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks import timing
from benchmarks.options import options

RAY = """
import time, ray
from pathlib import Path
from absld_search.search.ray_session import ray_session
from absld_search.search.study import held
from benchmarks.driver import plan
with held(plan(Path({out!r}), 1)) as study, ray_session(study.plan, study.lease.token, study.stop):
    began = time.perf_counter()
    def trains():
        import absld_search.search.worker
    ray.get(ray.remote(num_cpus=1)(trains).remote())
    print(time.perf_counter() - began)
"""


def commands(out: str) -> dict[str, list[str]]:
    """{what it is: arguments of python}."""
    return {
        "python alone": ["-c", "pass"],
        "import torch": ["-c", "import torch"],
        "import absld_search.core.trial": ["-c", "import absld_search.core.trial"],
        "import absld_search.search.study": ["-c", "import absld_search.search.study"],
        "run --list": ["-m", "absld_search.run", "--list"],
        "run absld --dry-run": ["-m", "absld_search.run", "absld", "--dry-run", "--out", out],
        "Ray started, a worker ready, Ray ended": ["-c", RAY.format(out=out)],
    }


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    return options(__doc__, words=words)


def main(words: Sequence[str] | None = None) -> None:
    told = asked(words)
    rounds, rows = 2 if told.short else 7, []
    print(f"start-up, wall-clock seconds ({rounds} rounds, median [range])")
    with tempfile.TemporaryDirectory() as out:
        for name, words in commands(out).items():
            taken, said = [], ""
            for _ in range(rounds + 1):
                began = time.perf_counter()
                said = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout
                taken.append(time.perf_counter() - began)
            taken = taken[1:]
            rows.append({"what": name, "seconds": statistics.median(taken), "low": min(taken), "high": max(taken)})
            print(f"{name:<40}{statistics.median(taken):7.2f}  [{min(taken):.2f} to {max(taken):.2f}]")
    worker = float(said.split()[-1])
    print(f"of the last line, a worker from being asked for to being ready: {worker:.2f}")
    timing.write(told.out, "startup", {"rows": rows, "rounds": rounds, "worker_seconds": worker})


if __name__ == "__main__":
    main()
