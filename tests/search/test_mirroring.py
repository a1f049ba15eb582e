"""MLflow away: the study goes on, and what MLflow missed is told later, once."""

from __future__ import annotations

from pathlib import Path

from mlflow.tracking import MlflowClient

from absld_search.core.records import EpochLog
from absld_search.search.mirroring import Mirroring
from absld_search.search.queue import Queue, front_trials
from absld_search.search.tracking import store_uri
from tests.search.requests import plan, pretend
from tests.search.test_queue import open_queue


def study(queue: Queue, mirroring: Mirroring) -> None:
    """A whole study with a mirror watching, and no training."""
    mirroring.open()
    while (row := queue.take()) is not None:
        mirroring.started(row)
        log = EpochLog(queue.plan.folder / "trainings" / row["training"] / "epochs.jsonl")
        log.append(1, {"robust_accuracy": 0.1, "temperature_adv/class_00": 1.0})
        mirroring.epoch(row["training"], 1, {})
        log.append(2, pretend(row["job"]))
        decided = queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=0.0)
        mirroring.training_done(queue.ledger.trainings(training=row["training"])[0])
        for trial in decided:
            mirroring.trial_done(trial)


def runs(out: Path, condition: str) -> set[str]:
    client = MlflowClient(store_uri(out))
    experiment = client.get_experiment_by_name("study")
    found = client.search_runs([experiment.experiment_id], condition)
    names = [run.info.run_name for run in found]
    assert len(names) == len(set(names)), "no run twice"
    return set(names)


def test_away_and_back(tmp_path: Path) -> None:
    said: list[str] = []
    away = plan(tmp_path, tracking_uri="http://me:hunter2@127.0.0.1:9")
    queue = open_queue(away)
    study(queue, Mirroring(away, queue.ledger, said.append))
    assert len(said) == 1 and "is away; the study goes on" in said[0]
    assert "hunter2" not in said[0]
    back = Mirroring(plan(tmp_path), queue.ledger, said.append)
    for _ in range(2):
        back.catch_up()
    assert len(said) == 1
    trials = queue.ledger.trials()
    assert runs(tmp_path, "tags.`absld.kind` = 'trial'") == {trial["trial"] for trial in trials}
    assert len(runs(tmp_path, "tags.`absld.kind` = 'training'")) == len(queue.ledger.trainings())
    joint, per_arm = front_trials(queue.plan, trials)
    assert runs(tmp_path, "tags.pareto = 'true'") == joint
    assert runs(tmp_path, "tags.pareto_arm = 'true'") == per_arm


def test_a_trial_carries_its_objectives_curves_and_test_means(tmp_path: Path) -> None:
    made = plan(tmp_path)
    queue = open_queue(made)
    mirroring = Mirroring(made, queue.ledger, print)
    study(queue, mirroring)
    mirroring.catch_up()
    client = MlflowClient(store_uri(tmp_path))
    experiment = client.get_experiment_by_name("study")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`absld.key` = 'rslad-000'")
    curve = client.get_metric_history(run.info.run_id, "robust_accuracy")
    assert [point.step for point in curve] == [1, 2]
    (trial,) = queue.ledger.trials(trial="rslad-000")
    assert run.data.metrics["robust_accuracy"] == trial["objectives"]["robust_accuracy"]
    confirm = queue.ledger.trainings(config=trial["config"], stage="confirm")
    expected = sum(row["metrics"]["test/cw_accuracy"] for row in confirm) / len(confirm)
    assert run.data.metrics["test/cw_accuracy"] == expected
    assert run.data.params["temperature_lr"] == "0.0"


def test_a_failed_trial_is_failed_in_mlflow_and_has_no_metric(tmp_path: Path) -> None:
    made = plan(tmp_path, trials=1, seeds=1)
    queue = open_queue(made)
    while (row := queue.take()) is not None:
        queue.done(row["training"], None, "nonfinite:loss@1", epochs=0, seconds=0.0)
    Mirroring(made, queue.ledger, print).catch_up()
    client = MlflowClient(store_uri(tmp_path))
    experiment = client.get_experiment_by_name("study")
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FAILED" and run.data.tags["reason"] == "nonfinite:loss@1"
        assert run.data.metrics == {}
    assert runs(tmp_path, "tags.pareto = 'true'") == set()
