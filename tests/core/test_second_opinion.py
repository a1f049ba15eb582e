"""Our attacks beside torchattacks' (Kim, arXiv:2010.01950), installed apart: it wants other versions of things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from absld_search.core.config import TrialConfig
from absld_search.core.trial import run_trial

ROOT = Path(__file__).parents[2]
PACKAGE = "torchattacks==3.5.1"


@pytest.mark.slow
def test_torchattacks_comes_to_the_same(tmp_path: Path) -> None:
    apart = tmp_path / "torchattacks"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(apart),
        "torchattacks==3.5.1",
    ]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("torchattacks cannot be installed here")
    config = TrialConfig.from_words({"method": "sat", "epochs": 4}, "digits")
    run_trial(config, tmp_path / "run", lambda *_: None)
    script = [sys.executable, "-m", "tests.core.second_opinion", str(tmp_path / "run" / "model.safetensors")]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(apart)])}
    done = subprocess.run(script, cwd=ROOT, env=where, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["fgsm"] < 1e-6 and found["pgd"] < 1e-6, "the same points where nothing is drawn"
    assert abs(found["apgd_theirs"] - found["apgd_ours"]) <= 0.02, found
    assert 0.2 < found["apgd_ours"] < 0.95, "or the comparison says nothing"
