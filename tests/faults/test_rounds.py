"""K1, K7 and S4 of the matrix, a few rounds each; `python -m tests.faults.run K1 --rounds 300` plays many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANY = int(os.environ.get("ABSLD_FAULT_ROUNDS", "0"))
# A SIGKILL takes nothing from the page cache, so memory is as good as a disk here, and far faster.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "rounds"), [("K1", 6), ("K1-rungs", 2), ("K7", 30), ("S4", 4), ("S4-apart", 2)])
def test_rounds_of_a_fault_break_no_invariant(fault: str, rounds: int, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.faults.run", fault, "--rounds", str(MANY or rounds)]
    environment = {**os.environ, "TMPDIR": FAST or str(tmp_path)}
    found = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-4000:]
    summary = json.loads(found.stdout.splitlines()[-1])
    assert summary["broken"] == 0 and summary["rounds"] == (MANY or rounds) and summary["injected"] >= rounds / 2
