"""Every space that comes with the project: it resolves, shows its first configurations, and runs dry in the queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from absld_search import catalog, run
from absld_search.search import describe
from absld_search.search.ledger import COMPLETE, Ledger
from absld_search.search.plan import Plan, resolve
from absld_search.search.queue import Queue
from absld_search.space import Choice, LogUniform, SearchSpace
from tests.search.requests import pretend, request

SETTLED = {"storage": "sqlite://", "seeds": 1}


def made(name: str, tmp_path: Path, **words: object) -> Plan:
    return resolve(request(tmp_path, name, **{**SETTLED, **words}), catalog.load(name).space)


@pytest.mark.parametrize("name", catalog.names())
def test_every_space_is_shown_and_nothing_created(name: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(run.main, [name, "--dry-run", "--smoke", "--out", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    for arm in catalog.load(name).space.arms:
        assert f"  {arm}-000  " in found.stdout
    assert "identical" not in found.stdout
    assert not (tmp_path / "out").exists()


def test_arms_that_are_the_same_are_warned_of(tmp_path: Path) -> None:
    """However they are written; not those that differ in a value, or in whether a tuned parameter exists."""
    tuned = {"temperature_lr": LogUniform(1e-2, 1.0), "averaging": Choice(("none", "ema"), when={"coupling": "dual"})}
    arms = {"a": {}, "b": {"epochs": 2}, "c": {"coupling": "dual"}, "d": {"coupling": "shared"}}
    plan = resolve(request(tmp_path, "twins", **SETTLED), SearchSpace(arms=arms, tuned=tuned))
    (line,) = [line for line in describe.opening(plan).splitlines() if "identical" in line]
    assert "warning    arms 'a' and 'b' are identical" in line


@pytest.mark.parametrize("name", catalog.names())
def test_every_space_runs_to_its_end_in_the_queue(name: str, tmp_path: Path) -> None:
    """All that a study does but the training itself."""
    few = len(catalog.load(name).space.arms) > 10
    plan = made(name, tmp_path, trials=1 if few else 2)
    queue = Queue(plan, Ledger("sqlite://", name))
    stages = []
    while (row := queue.take()) is not None:
        queue.done(row["training"], pretend(row["job"]), "", epochs=1, seconds=0.0)
        stages.append(row["stage"])
    trials = queue.ledger.trials()
    assert {trial["state"] for trial in trials} == {COMPLETE}
    assert len(trials) == sum(arm.trials for arm in plan.arms)
    assert {arm.name for arm in plan.arms} == {trial["arm"] for trial in trials if trial["confirmed"]}
    assert "confirm" in stages and len(set(stages)) == 2
