"""What is given away works outside the checkout, under the names that the documentation says."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import absld_search
from absld_search import top_level
from absld_search.words import UsageError

ROOT = Path(__file__).parents[1]
OURS = ("absld_search", "analysis", "search_spaces")  # the wheel's packages
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "runs", "data", "teachers", "build", "site", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)


def test_every_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        str(file.parent.relative_to(ROOT)).replace("/", ".") for top in OURS for file in (ROOT / top).rglob("*.py")
    }
    assert set(listed) == there


EXTRA = {"optuna_integration": "optuna-integration"}  # modules of an extra, imported where it is asked for


def test_every_import_of_ours_is_declared() -> None:
    """The wheel's test borrows what it depends on, so it cannot miss what pyproject.toml forgets."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    extras = {
        canonicalize_name(Requirement(text).name) for of in project["optional-dependencies"].values() for text in of
    }
    made_of = packages_distributions()
    for name, file in sorted(_imported().items()):
        if name in EXTRA:
            assert EXTRA[name] in extras
            continue
        known = {canonicalize_name(distribution) for distribution in made_of.get(name, [])}
        assert known & declared, f"{file} imports {name}, which no dependency of pyproject.toml brings"


def _imported() -> dict[str, str]:
    """Top-level name of every import in the wheel's packages, others' alone -> a file that has it."""
    found = {}
    for file in (file for top in OURS for file in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.partition(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in (*sys.stdlib_module_names, *OURS)}


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
    assert tops == {*OURS, f"absld_search-{absld_search.__version__}.dist-info"}
    assert {"analysis/reported.json", *(f"{top}/py.typed" for top in OURS)} <= set(files)
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
    assert f"report: {study}/report/index.html" in command("analysis.report", study)
    assert (empty / study / "report/figures/pareto_front.pdf").is_file()
    where = subprocess.run([str(python), "-c", "import analysis; print(analysis.__file__)"], cwd=empty, env=environment,
                           capture_output=True, text=True)  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(packages)
    assert {path.name for path in empty.iterdir()} == {"runs"}, "nothing is written elsewhere"
