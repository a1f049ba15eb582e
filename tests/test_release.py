"""What is given away works outside the checkout, under the names that the documentation says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import absld_search
from absld_search import top_level
from absld_search.words import UsageError

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "runs", "data", "teachers", "build", "site", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)


def test_every_package_is_in_the_wheel() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    tops = ("absld_search", "analysis", "search_spaces")
    there = {
        str(file.parent.relative_to(ROOT)).replace("/", ".") for top in tops for file in (ROOT / top).rglob("*.py")
    }
    assert set(listed) == there


def test_the_version_is_said_once_and_cited() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == absld_search.__version__ and cited["license"] == "Apache-2.0"
    assert f"## {absld_search.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_folder_that_hides_ours_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "analysis").mkdir()
    top_level.require_ours()
    (tmp_path / "analysis/__init__.py").write_text("")
    line = [sys.executable, "-m", "absld_search.run", "ablation_dual_temps", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 2 and "hides the package 'analysis'" in found.stderr and found.stdout == ""
    monkeypatch.setattr(top_level, "BESIDE", ("no_such_package_of_ours",))
    with pytest.raises(UsageError, match="install it again"):
        top_level.require_ours()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist, and of the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)  # a build leaves files in its source
    # Without isolation: an isolated build downloads setuptools, which is here already.
    line = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "source")]
    subprocess.run(line, check=True, capture_output=True, timeout=300)
    return folder / "dist"


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_say(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    tops = {name.split("/")[0] for name in files}
    assert tops == {"absld_search", "analysis", "search_spaces", f"absld_search-{absld_search.__version__}.dist-info"}
    assert "analysis/reported.json" in files
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "CITATION.cff",
        "constraints.txt",
        "tests/test_release.py",
        "benchmarks/views.py",
        "docs/METHODS.md",
    } <= names


@pytest.mark.slow
def test_the_wheel_answers_from_an_empty_folder(built: Path, tmp_path: Path) -> None:
    """Installed alone into a new environment, the main command runs whole, and so do those that read its study.

    What the wheel depends on is not downloaded: a .pth file lends the new environment this one's packages.
    """
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (empty := tmp_path / "empty").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def command(*words: str) -> str:
        line = [str(python), "-m", *words]
        done = subprocess.run(line, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    output = command("absld_search.run", "ablation_dual_temps", "--smoke", "--trials", "1", "--seeds", "1")
    assert "SMOKE" in output and "Traceback" not in output
    study = "runs/ablation_dual_temps-digits-smoke"
    assert re.search(r"nobody drives it\n8/8 trainings", command("absld_search.status", study))
    assert "| dual |" in command("analysis.tables", study)
    where = subprocess.run([str(python), "-c", "import analysis; print(analysis.__file__)"], cwd=empty, env=environment,
                           capture_output=True, text=True)  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(packages)
    assert {path.name for path in empty.iterdir()} == {"runs"}, "nothing is written elsewhere"
