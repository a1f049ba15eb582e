"""What the tests of the mirror share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from absld_search.search.tracking import store_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without a study: to make one costs MLflow seconds, to copy it nothing."""
    folder = tmp_path_factory.mktemp("store")
    MlflowClient(store_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> None:
    """The test's folder has a store already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
