"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from absld_search import run


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Teachers of the tests stay out of the person's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("ABSLD_CACHE_DIR")
    os.environ["ABSLD_CACHE_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["ABSLD_CACHE_DIR"]
    else:
        os.environ["ABSLD_CACHE_DIR"] = before


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
