"""Spaces that come with the project, on digits with --smoke, through Ray: one Ray for all of them.

Those that differ most in what they need, always; every one with ABSLD_TEST_EVERY_SPACE=1, which takes minutes.
`search/test_spaces.py` runs every space through the queue, without training.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from click.testing import CliRunner

from absld_search import catalog, run
from absld_search.core import results

FEW = ("fair_teacher", "label_source", "short_proxy", "static_vs_adaptive", "transfer_of_settings")
NAMES = catalog.names() if os.environ.get("ABSLD_TEST_EVERY_SPACE") == "1" else FEW


@pytest.fixture(scope="module")
def one_ray(own_cache: Path) -> Iterator[None]:
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str, one_ray: None, tmp_path: Path) -> None:
    words = [name, "--smoke", "--trials", "1", "--seeds", "1", "--out", str(tmp_path)]
    found = CliRunner().invoke(run.main, words)
    assert found.exit_code == 0, found.output
    tables = results.load(tmp_path / f"{name}-digits-smoke")
    assert set(tables.trials["state"].to_pylist()) == {"COMPLETE"}
    assert set(tables.trials["arm"].to_pylist()) == set(catalog.load(name).space.arms)


@pytest.mark.slow
def test_smoke_with_rungs_a_race_and_another_studys_trainings(one_ray: None, tmp_path: Path) -> None:
    words = ["adv_clean_mix", "--smoke", "--seeds", "1", "--out", str(tmp_path), "--trials", "3"]
    rungs = ["--stopping", "mo-asha", "--eta", "2", "--grace", "1", "--race"]
    found = CliRunner().invoke(run.main, [*words, *rungs])
    assert found.exit_code == 0, found.output
    tables = results.load(tmp_path / "adv_clean_mix-digits-smoke")
    assert set(tables.trials["state"].to_pylist()) == {"COMPLETE", "STOPPED"}
    assert {"rung", "search", "race", "confirm"} >= set(tables.trainings["stage"].to_pylist()) >= {"rung", "search"}
    again = CliRunner().invoke(run.main, [*words, "--trials", "1", "--study", "again", "--reuse"])
    assert again.exit_code == 0, again.output
    assert "is taken over from study 'adv_clean_mix-digits-smoke'" in again.output
