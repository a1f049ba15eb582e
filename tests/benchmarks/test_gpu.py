"""The GPU's benchmark runs end to end on a CPU at toy size: figures from there mean nothing, files do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", ["step", "epochs", "packing", "autoattack"])
def test_a_part_runs(part: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("toy sizes are for machines without a GPU")
    assert gpu.main([part, "--toy", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / f"gpu-{part}.json").read_text())
    assert written["toy"] and written[part] and written["machine"]["torch"] == torch.__version__


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.main(["step"])
    assert "there is no GPU" in capsys.readouterr().err
