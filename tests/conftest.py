"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from absld_search import run


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tests stay out of the person's cache, MLflow server and cluster."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABSLD_CACHE_DIR", str(folder))
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):  # the person's own server and cluster
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole finished study: the main command, with `--smoke`, through Ray and all."""
    out = tmp_path_factory.mktemp("runs")
    found = CliRunner().invoke(run.main, ["ablation_dual_temps", "--smoke", "--out", str(out)])
    assert found.exit_code == 0, found.output
    return out / "ablation_dual_temps-digits-smoke"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
