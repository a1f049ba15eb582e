"""Every space that comes with the project, on digits as --smoke has them, through Ray: one Ray for all of them.

Those that differ most in what they need go the whole way, by the command, with MLflow and the report; the others are
trained, judged and written down by the same driver: what differs between spaces. With ABSLD_TEST_EVERY_SPACE=1 all of
them go the whole way, which takes minutes. `search/test_spaces.py` runs every space through the queue, untrained.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from click.testing import CliRunner

from absld_search import catalog, run
from absld_search.core import results
from absld_search.search import study
from tests.search.requests import plan

FEW = ("fair_teacher", "label_source", "short_proxy", "static_vs_adaptive", "transfer_of_settings")
NAMES = tuple(catalog.names()) if os.environ.get("ABSLD_TEST_EVERY_SPACE") == "1" else FEW
OTHERS = sorted(set(catalog.names()) - set(NAMES))


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


class Nobody:
    """In the place of the mirror to MLflow."""

    def __init__(self, *_: object) -> None: ...
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words, **more: None


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_trained(name: str, one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "Mirroring", Nobody)
    space = catalog.load(name).space
    with study.held(plan(tmp_path, space=space, study=name, trials=1, seeds=1)) as started:
        assert started.run() == study.DONE
    tables = results.load(tmp_path / name)
    assert set(tables.trials["state"].to_pylist()) == {"COMPLETE"}
    assert set(tables.trials["arm"].to_pylist()) == set(space.arms)
    assert min(tables.trials["seconds"].to_pylist()) > 0


@pytest.mark.slow
def test_smoke_with_rungs_a_race_and_another_studys_trainings(one_ray: None, tmp_path: Path) -> None:
    words = ["adv_clean_mix", "--smoke", "--seeds", "1", "--out", str(tmp_path), "--trials", "4"]
    rungs = ["--stopping", "mo-asha", "--eta", "2", "--set", "epochs=4", "--race"]
    rungs += ["--epochs-budget", "48"]  # for each arm 4 x 2 on the rung, 2 x 4 to the end, and 2 x 4 in the race
    found = CliRunner().invoke(run.main, [*words, *rungs])
    assert found.exit_code == 0, found.output
    tables = results.load(tmp_path / "adv_clean_mix-digits-smoke")
    assert set(tables.trials["state"].to_pylist()) == {"COMPLETE", "STOPPED"}
    assert set(tables.trainings["stage"].to_pylist()) == {"rung", "search", "race", "confirm"}
    again = CliRunner().invoke(run.main, [*words, "--trials", "1", "--study", "again", "--reuse"])
    assert again.exit_code == 0, again.output
    assert "is taken over from study 'adv_clean_mix-digits-smoke'" in again.output
