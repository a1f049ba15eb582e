"""K3 to K6 and D1 on the real command, each once; `python -m tests.faults.run K5 --rounds 30` plays many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import ray_rounds


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["ALL", "K5"])
def test_the_real_command_under_faults(fault: str, tmp_path: Path) -> None:
    assert ray_rounds.play(fault, 1, tmp_path) >= 1
