"""A whole study whose truth lies in PostgreSQL and an object store: the driver's machine can be lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from absld_search import run
from absld_search.core import results
from absld_search.core.store import Store
from absld_search.search.ledger import COMPLETE, Ledger
from tests.cluster import objects
from tests.faults.invariants import check

pytestmark = pytest.mark.slow
NAME = "lost"


def test_a_lost_machine_costs_no_training(postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := objects.why_not():
        pytest.skip(reason)
    for name, value in objects.KEYS.items():
        monkeypatch.setenv(name, value)
    with objects.server(tmp_path) as uri:
        out = tmp_path / "first"
        words = ["ablation_dual_temps", "--smoke", "--study", NAME, "--storage", postgresql, "--store", uri]
        found = CliRunner().invoke(run.main, [*words, "--out", str(out)])
        assert found.exit_code == 0, found.output
        trained = {row["training"]: row["attempts"] for row in Ledger(postgresql, NAME).trainings()}
        before = results.load(out / NAME)
        shutil.rmtree(out)
        found = CliRunner().invoke(run.main, [*words, "--out", str(tmp_path / "other")])
        assert found.exit_code == 0, found.output
        after = results.load(tmp_path / "other" / NAME)
        assert Store(uri).files(f"{NAME}/results") and Store(uri).files(f"{NAME}/report")
    rows = Ledger(postgresql, NAME).trainings()
    assert {row["training"]: row["attempts"] for row in rows} == trained and {row["state"] for row in rows} == {
        COMPLETE
    }
    assert after.images.equals(before.images) and after.trials.equals(before.trials)
    check(tmp_path / "other" / NAME, settled=True, url=postgresql)
