"""The GPU's benchmark runs end to end on a CPU at toy size: figures from there mean nothing, files do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from absld_search.core import models
from absld_search.core.speed import Speed
from benchmarks import gpu, gpu_autoattack, timing
from benchmarks.gpu_packing import READY
from benchmarks.gpu_setting import Setting, flops
from benchmarks.train_step import OurStep, Table, batch_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["step", "epochs", "packing", "autoattack"])
def test_a_part_runs(part: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("toy sizes are for machines without a GPU")
    assert gpu.main([part, "--toy", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / f"gpu-{part}.json").read_text())
    if part == "epochs":
        assert written[part]["mfu"] > 0 and written["peak"] == gpu.PEAK
    assert written["toy"] and written[part] and written["machine"]["torch"] == torch.__version__


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.main(["step"])
    assert "there is no GPU" in capsys.readouterr().err


def test_autoattack_wants_images_that_can_be_learned(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["autoattack"])
    assert "needs --data" in capsys.readouterr().err


def late_setting(out: Path) -> Setting:
    return Setting(gpu.TOY, "cpu", None, time.monotonic() - 3600, True, out, 1e12)


def test_a_late_attack_ends_with_its_first_images(tmp_path: Path) -> None:
    student, batch = models.build("resnet-8-4", 10, 3, 0).eval(), batch_of(6)
    found = gpu_autoattack.attacked(student, batch.x, batch.y, late_setting(tmp_path), kept=0.0)
    assert found["images"] == gpu.TOY.chunk == 2


def test_late_rounds_do_not_begin() -> None:
    found = timing.in_turns({"one": lambda: sum(range(9999)), "two": lambda: sum(range(9999))}, 9, late=lambda: True)
    assert [each.rounds for each in found] == [1, 1]


@pytest.mark.parametrize(("groups", "multiplications"), [(1, 3 * 6 * 9 * 36), (3, 6 * 9 * 36)])
def test_operations_are_counted(groups: int, multiplications: int) -> None:
    """One convolution to 6x6: in the attack forward and back to the image, then forward and back to the weights for
    both kinds of images."""
    convolution = nn.Conv2d(3, 6, 3, stride=6, padding=1, groups=groups)
    student, batch = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten()), batch_of(4)
    ours = OurStep(student, Table(torch.zeros(4, 6)), batch, Speed(), num_steps=1)
    assert flops(ours) == 2 * 4 * multiplications * (2 + 2 + 2)


def test_a_process_waits_until_all_are_ready() -> None:
    """It says that it is, and begins when it is told; told nothing, it fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", "one", "--toy"], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said, complaint = process.communicate("")
    assert said == READY and process.returncode and "another process did not get ready" in complaint


def test_a_step_that_is_recorded_does_not_look_at_the_generator() -> None:
    """A rescue from full memory notes its state, and CUDA refuses that while it records."""
    student, table = models.build("resnet-8-4", 10, 3, 0), Table(torch.zeros(4, 10))
    ours = gpu.recordable(student, table, batch_of(4), precision="bf16")
    assert ours.trainer.speed.graphs and not ours.trainer.rescue.active and ours.trainer.options.precision == "bf16"


def test_what_a_part_has_found_is_kept_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(setting: gpu.Setting, name: str) -> dict[str, str]:
        if name == "second":
            raise KeyboardInterrupt
        return {"found": name}

    monkeypatch.setattr(gpu, "TOY", replace(gpu.TOY, students=("first", "second")))
    monkeypatch.setattr(gpu, "one_student", cut)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["step", "--toy", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "gpu-step.json").read_text())["step"] == {"first": {"found": "first"}}


ALONE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in {absent!r} else self.finder.find_spec(name, *more)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from benchmarks import gpu
for part in {parts!r}:
    assert gpu.main([part, "--toy", "--out", {out!r}]) == 0
"""
OURS = {  # what the package itself depends on beside torch (which brings filelock) and numpy
    "click", "matplotlib", "mlflow", "optuna", "pandas", "PIL", "platformdirs", "pyarrow", "pyautoattack", "ray",
    "rich", "safetensors", "scipy", "sklearn", "sqlalchemy", "torchvision",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "beside"), [(["step", "epochs"], set()), (["autoattack"], {"pyautoattack"})])
def test_it_needs_torch_and_numpy_alone(parts: list[str], beside: set[str], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("toy sizes are for machines without a GPU")
    code = ALONE.format(absent=OURS - beside, parts=parts, out=str(tmp_path))
    around = {name: value for name, value in os.environ.items() if name != "ABSLD_CACHE_DIR"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=around, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all((tmp_path / f"gpu-{part}.json").exists() for part in parts)
