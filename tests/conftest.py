"""What all tests share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import settings

from absld_search import run
from absld_search.core.files import Folders
from absld_search.workloads import WORKLOADS, FileTeacher, TeacherSpec, Workload
from tests import image_files as files
from tests.cluster import postgres

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that of several processes none begins one when the others have ended."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tests stay out of the person's cache, MLflow server and cluster."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABSLD_CACHE_DIR", str(folder))
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):  # the person's own server and cluster
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(autouse=True)
def tracing() -> Iterator[None]:
    """AutoAttack's check for dynamic defences ends tracing for good, and so the measuring of coverage."""
    before = sys.gettrace()
    yield
    sys.settrace(before)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty PostgreSQL, where a server is installed; who writes in it cleans up."""
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole finished study: the main command, with `--smoke`, through Ray and all."""
    out = tmp_path_factory.mktemp("runs")
    found = CliRunner().invoke(run.main, ["ablation_dual_temps", "--smoke", "--deterministic", "--out", str(out)])
    assert found.exit_code == 0, found.output
    return out / "ablation_dual_temps-digits-smoke"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """A small CIFAR-10 in which the class can be seen, an empty teacher folder, and a cache of its own."""
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))
    images, labels = files.random_images(200) // 8, files.labels_of(200)
    images += (labels * 20).astype("uint8")[:, None, None, None]
    place = files.write_cifar10(tmp_path / "data", images, labels, 100)
    (tmp_path / "teachers").mkdir()
    return Folders(str(place), str(tmp_path / "teachers"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Workload:
    """The papers' workload made tiny: same path, a small network in each role."""
    made = replace(
        WORKLOADS["cifar10"],
        name="tiny",
        student="resnet-8-2",
        teachers={
            "file": FileTeacher("wrn-10-1", "model_cifar_wrn.pt", "its repository", floor=0.05),
            "half": FileTeacher("wrn-10-1", "model_cifar_wrn.pt", "its repository", floor=0.05, half=True),
            "sat": TeacherSpec("resnet-8-2", "sat", epochs=1, learning_rate=0.1),
        },
        teacher="file",
        split={"train": 0.5, "val": 0.5, "test": 1.0},
        batch_size=25,
        epochs=1,
        num_steps=1,
        teacher_epochs=1,
    )
    monkeypatch.setitem(WORKLOADS, "tiny", made)
    return made
