"""One training from the command line: no Ray, no Optuna, no MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from absld_search import train

ROOT = Path(__file__).parents[1]


def run(*words: str, out: Path) -> tuple[int, str, str]:
    found = CliRunner().invoke(train.main, ["--workload", "digits-smoke", "--out", str(out), *words])
    return found.exit_code, found.stdout, found.stderr


def test_trains_and_prints_accuracies(tmp_path: Path) -> None:
    code, output, _ = run("temperature_lr=0.2", "epochs=3", out=tmp_path)
    assert code == 0
    assert "epoch 3/3" in output and "worst_class_robust_accuracy" in output
    (folder,) = tmp_path.iterdir()
    assert (folder / "model.safetensors").exists() and folder.name.endswith("-s0")
    code, again, _ = run("temperature_lr=0.2", "epochs=3", out=tmp_path)
    assert code == 0 and "epoch 3/3" not in again, "it was complete"


def test_what_is_undefined_is_said(tmp_path: Path) -> None:
    code, output, _ = run("--method", "sat", "eps=1", out=tmp_path)
    assert code == 0 and "robust_nsd                    undefined" in output


@pytest.mark.parametrize(("word", "message"), [("temperatur_lr=1", "Did you mean"), ("x", "KEY=VALUE")])
def test_refusals(tmp_path: Path, word: str, message: str) -> None:
    code, output, error = run(word, out=tmp_path / "out")
    assert code == 2 and message in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["/proc/nope", "file/below"])
def test_an_out_that_cannot_be_written_is_refused_before_a_teacher_is_trained(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "file").touch()
    code, output, error = run(out=tmp_path / where)
    assert code == 2 and f"--out: nothing can be written in {tmp_path / where}/" in error and not output
    assert not (tmp_path / "cache").exists()


def test_imports_neither_ray_nor_optuna_nor_mlflow() -> None:
    code = (
        "import sys; import absld_search.train; import absld_search.core.trial\n"
        "assert not {'ray', 'optuna', 'mlflow', 'sqlalchemy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
