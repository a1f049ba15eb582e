"""A number that is not finite never leaves a training: not to the front, Optuna or MLflow, and the search goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from absld_search import run
from absld_search.core import results
from absld_search.search import wire
from absld_search.search.choices import front_trials
from absld_search.search.ledger import COMPLETE, FAILED
from absld_search.search.searcher import LedgerSearcher
from absld_search.search.tracking import store_uri
from tests.search.requests import plan, pretend
from tests.search.test_queue import drain, open_queue


class Deaf:
    """An observer who wants to know nothing."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@pytest.mark.parametrize("name", ["robust_accuracy", "clean_accuracy"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None], ids=["nan", "inf", "-inf", "missing"])
def test_a_worker_that_reports_such_a_number_has_failed(bad: float | None, name: str, tmp_path: Path) -> None:
    queue = open_queue(plan(tmp_path, trials=3, seeds=1))
    searcher = LedgerSearcher(queue, Deaf(), print)
    found = wire.unpacked(searcher.suggest("one"))
    metrics = {**pretend(found["job"]), name: bad}
    final = {key: value for key, value in metrics.items() if value is not None}
    searcher.on_trial_complete("one", wire.packed(final=final, epochs=2, seconds=0.0))
    trial = queue.ledger.trials()[0]
    if bad is None and name == "clean_accuracy":
        assert trial["state"] == COMPLETE, "no objective, so nothing is missing"
        return
    assert trial["state"] == FAILED and trial["objectives"] is None
    where = name if bad is None else f"metric-{name}"
    assert trial["reason"] == f"nonfinite:{where}@2"
    drain(queue)
    assert trial["trial"] not in set().union(*front_trials(queue.plan, queue.ledger.trials()))
    assert sum(row["state"] == COMPLETE for row in queue.ledger.trials()) == 3
    assert all(not study.running() for study in queue.studies.values()), "no zombie"
    json.dumps([row["metrics"] for row in queue.ledger.trainings()], allow_nan=False)


SPACE = '''"""Does the search outlive an arm that cannot be trained?"""
from absld_search.space import SearchSpace
SPACE = SearchSpace(fixed={"method": "sat", "momentum": 0.0}, arms={"sane": {}, "wild": {"learning_rate": 1e30}})
'''


@pytest.mark.slow
def test_n1_through_the_real_driver(tmp_path: Path) -> None:
    """A learning rate of 1e30: the weights overflow by themselves, in real workers."""
    (tmp_path / "diverges.py").write_text(SPACE)
    words = ["--workload", "digits", "--smoke", "--seeds", "1", "--out", str(tmp_path / "runs")]
    found = CliRunner().invoke(run.main, [str(tmp_path / "diverges.py"), *words])
    assert found.exit_code == 3, found.output
    (folder,) = (tmp_path / "runs").glob("diverges-*")
    tables = results.load(folder)
    trials = {row["arm"]: row for row in tables.trials.to_pylist()}
    assert trials["sane"]["state"] == COMPLETE and trials["sane"]["pareto"] and trials["sane"]["chosen"]
    assert trials["wild"]["state"] == FAILED and trials["wild"]["reason"].startswith("nonfinite:student-logits@")
    assert not trials["wild"]["pareto"] and not trials["wild"]["pareto_arm"] and not trials["wild"]["chosen"]
    url = f"sqlite:///{folder / 'study.db'}"
    for arm, state in (("sane", "COMPLETE"), ("wild", "FAIL")):
        study = optuna.load_study(study_name=f"{folder.name}.{arm}", storage=url)
        assert [trial.state.name for trial in study.get_trials()] == [state]
    client = MlflowClient(store_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name(folder.name).experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs if run.data.tags.get("arm") == "wild"} == {"FAILED"}
    for each in runs:
        points = [p for name in each.data.metrics for p in client.get_metric_history(each.info.run_id, name)]
        assert all(abs(point.value) < 1e30 for point in points), "MLflow stores infinity as 1.8e308"
