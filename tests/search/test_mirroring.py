"""MLflow away: the study goes on, and what MLflow missed is told later, once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest
from mlflow.tracking import MlflowClient

from absld_search import ui
from absld_search.core.records import EpochLog
from absld_search.core.store import Store
from absld_search.search import background, mirroring, palette, wire
from absld_search.search.choices import front_trials
from absld_search.search.ledger import COMPLETE, Ledger, Row
from absld_search.search.mirroring import Mirroring
from absld_search.search.mlflow_view import Shown
from absld_search.search.queue import Queue
from absld_search.search.searcher import LedgerSearcher
from absld_search.search.sending import Fetching
from absld_search.search.tracking import Mirror, store_uri
from absld_search.words import UsageError
from tests.cluster import objects
from tests.search.requests import plan, pretend
from tests.search.test_queue import open_queue

LONG = 120.0  # seconds that no test comes near
pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is told, a failure is repeated soon, and a request that hangs is given up soon."""
    monkeypatch.setattr(mirroring, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def study(queue: Queue, watching: Mirroring, between: Callable[[int], None] = lambda number: None) -> None:
    """A whole study with a mirror watching, through the searcher's callbacks, and no training."""
    watching.open()
    searcher = LedgerSearcher(queue, watching, print)
    number = 0
    while isinstance(asked := searcher.suggest(str(number)), dict):
        found = wire.unpacked(asked)
        train(queue, searcher, str(number), found)
        number += 1
        between(number)


def train(queue: Queue, searcher: LedgerSearcher, name: str, found: dict[str, Any]) -> None:
    log = EpochLog(queue.plan.folder / "trainings" / found["training"] / "epochs.jsonl")
    for epoch in (1, 2):
        metrics = pretend(found["job"]) if epoch == 2 else {"robust_accuracy": 0.1, "temperature_adv/class_00": 1.0}
        log.append(epoch, metrics)
        searcher.on_trial_result(name, wire.packed(epoch=epoch, metrics={}))
    final = pretend(found["job"])
    searcher.on_trial_complete(name, wire.packed(final=final, epochs=2, seconds=0.0))


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
    watching = Mirroring(away, queue.ledger, said.append)
    study(queue, watching)
    assert not watching.close(LONG)
    assert len(said) == 2 and "is away; the study goes on" in said[0] and "the same command" in said[1]
    assert "hunter2" not in "".join(said)
    for _ in range(2):
        back = Mirroring(plan(tmp_path), queue.ledger, said.append)
        back.catch_up()
        assert back.close(LONG)
    assert len(said) == 2
    trials = queue.ledger.trials()
    assert runs(tmp_path, "tags.`absld.kind` = 'trial'") == {trial["trial"] for trial in trials}
    assert len(runs(tmp_path, "tags.`absld.kind` = 'training'")) == len(queue.ledger.trainings())
    joint, per_arm = front_trials(queue.plan, trials)
    assert runs(tmp_path, "tags.pareto = 'true'") == joint
    assert runs(tmp_path, "tags.pareto_arm = 'true'") == per_arm


def test_a_trial_carries_its_objectives_curves_and_test_means(tmp_path: Path) -> None:
    made = plan(tmp_path)
    queue = open_queue(made)
    watching = Mirroring(made, queue.ledger, print)
    study(queue, watching)
    assert watching.close(LONG)
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
    assert [p.step for p in client.get_metric_history(run.info.run_id, "temperature_adv/class_00")] == [1]
    assert run.data.tags["confirmed"] == "true"
    assert run.data.tags["mlflow.runColor"] == palette.COLOURS[1]  # strong, whether it is on the front or not
    assert "A trial of arm **rslad**" in run.data.tags["mlflow.note.content"]
    assert "| robust\\_cvar |" in run.data.tags["mlflow.note.content"]
    assert "**Does it?**" in experiment.tags["mlflow.note.content"]
    assert "viewStateShareKey=failures" in experiment.tags["mlflow.note.content"]


def test_curves_of_other_machines_come_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a training runs, when it has failed, and once a store that was away at its end is back."""
    for name, value in objects.KEYS.items():
        monkeypatch.setenv(name, value)
    uri, said = f"file://{tmp_path}/store", list[str]()
    made = plan(tmp_path, store=uri, trials=2, seeds=1)
    queue = open_queue(made)
    watching = Mirroring(made, queue.ledger, said.append, Fetching(made, said.append).log)
    searcher = LedgerSearcher(queue, watching, print)
    watching.open()

    def begun(name: str) -> str:
        asked = searcher.suggest(name)
        assert isinstance(asked, dict)
        key = str(wire.unpacked(asked)["training"])
        EpochLog(tmp_path / "elsewhere" / key / "epochs.jsonl").append(1, {"robust_accuracy": 0.1})
        Store(uri).push(tmp_path / "elsewhere" / key, f"{made.request.study}/trainings/{key}")
        searcher.on_trial_result(name, wire.packed(epoch=1, metrics={}))
        return key

    runs_on, fails = begun("0"), begun("1")
    searcher.on_trial_complete("1", wire.packed(failed="nonfinite:loss@2", epochs=1, seconds=0.0))
    assert watching.background.drain(LONG), said
    assert curve(tmp_path, runs_on) == curve(tmp_path, fails) == [(1, 0.1)]
    away = "s3://bucket/store?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"  # nobody listens there
    watching.fetch = Fetching(plan(tmp_path, store=away, trials=2, seeds=1), said.append).log
    late = begun("2")
    searcher.on_trial_complete("2", wire.packed(failed="nonfinite:loss@2", epochs=1, seconds=0.0))
    assert not watching.close(LONG)
    assert "the store is away" in said[0] and "MLflow catches up later" in said[0]
    shutil.rmtree(made.folder / "trainings")
    again = Mirroring(made, queue.ledger, said.append, Fetching(made, said.append).log)
    again.catch_up()
    assert again.close(LONG), said
    assert curve(tmp_path, late) == [(1, 0.1)]


def test_fronts_of_thousands_are_looked_at_seldom_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a look took a second: no other follows it while this study runs, and the last word is true."""
    monkeypatch.setattr(mirroring, "MOMENT", -1.0)
    monkeypatch.setattr(mirroring, "FRONTS_SHARE", 1e9)
    looks: list[int] = []
    monkeypatch.setattr(mirroring, "front_trials", lambda *words: looks.append(1) or front_trials(*words))
    made = plan(tmp_path)
    queue = open_queue(made)
    watching = Mirroring(made, queue.ledger, print)
    study(queue, watching, lambda number: bool(watching.background.drain(LONG)))
    assert len(looks) == 1
    assert watching.close(LONG) and len(looks) == 2
    joint, per_arm = front_trials(queue.plan, queue.ledger.trials())
    assert runs(tmp_path, "tags.pareto = 'true'") == joint
    assert runs(tmp_path, "tags.pareto_arm = 'true'") == per_arm


def curve(out: Path, training: str) -> list[tuple[int, float]]:
    client = MlflowClient(store_uri(out))
    experiment = client.get_experiment_by_name("study")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`absld.key` = '{training}'")
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "robust_accuracy")]


def test_a_failed_trial_is_failed_in_mlflow_and_has_no_metric(tmp_path: Path) -> None:
    made = plan(tmp_path, trials=1, seeds=1)
    queue = open_queue(made)
    while (row := queue.take()) is not None:
        queue.done(row["training"], None, "nonfinite:loss@1", epochs=0, seconds=0.0)
    watching = Mirroring(made, queue.ledger, print)
    watching.catch_up()
    assert watching.close(LONG)
    client = MlflowClient(store_uri(tmp_path))
    experiment = client.get_experiment_by_name("study")
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FAILED" and run.data.tags["reason"] == "nonfinite:loss@1"
        assert run.data.metrics == {}
    assert runs(tmp_path, "tags.pareto = 'true'") == set()


def test_an_experiment_that_was_deleted_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    made = plan(tmp_path)
    queue, said = open_queue(made), list[str]()
    first = Mirroring(made, queue.ledger, said.append)
    first.open()
    assert first.close(LONG)
    client = MlflowClient(store_uri(tmp_path))
    client.delete_experiment(client.get_experiment_by_name("study").experiment_id)
    again = Mirroring(made, queue.ledger, said.append)
    with pytest.raises(UsageError, match="was deleted .* restore"):
        again.open()
    assert said == []
    again.background.stop()


def test_only_what_is_missing_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    queue = open_queue(made)
    first = Mirroring(made, queue.ledger, print)
    study(queue, first)
    assert first.close(LONG)
    told: list[str] = []
    monkeypatch.setattr(Mirroring, "_training", lambda self, key: told.append(key))
    monkeypatch.setattr(Mirroring, "_trial_end", lambda self, name: told.append(name))
    again = Mirroring(made, queue.ledger, print)
    again.catch_up()
    assert again.close(LONG)
    assert told == []


class Answers(BaseHTTPRequestHandler):
    """A server that answers 500, or nothing until the test is over."""

    over, asked = threading.Event(), list[str]()
    hangs = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.hangs:
            self.over.wait()
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "says 500"])
def test_the_driver_never_waits_for_a_server(hangs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the driver's callbacks have returned, while the server has been asked and has not answered one request."""
    monkeypatch.setattr(mirroring, "OPEN_SECONDS", 0.1)
    monkeypatch.setattr(background, "PATIENCE", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100")

    class Handler(Answers):
        over, asked = threading.Event(), list[str]()

    Handler.hangs = hangs
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = plan(tmp_path, tracking_uri=f"http://127.0.0.1:{server.server_port}")
    queue, said = open_queue(made), list[str]()
    watching = Mirroring(made, queue.ledger, said.append)
    try:
        study(queue, watching)
        assert {row["state"] for row in queue.ledger.trainings()} == {COMPLETE}
        assert not watching.close(LONG)
        assert len(Handler.asked) == 1 if hangs else len(Handler.asked) > 1
        assert "not up to date" in said[-1]
    finally:
        Handler.over.set()
        server.shutdown()


class Server:
    """A real `mlflow server`, as `absld_search.ui` starts it."""

    def __init__(self, out: Path, words: IO[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.store, self.words = store_uri(out), words
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        process = ui._start(self.store, self.port, self.words)
        ui._wait_until_it_answers(process, self.port, self.words)
        return process

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def mlflow_server(out: Path) -> Iterator[Server]:
    with open(out / "server.log", "w+") as words:
        server = Server(out, words)
        try:
            yield server
        finally:
            server.kill()


@pytest.mark.slow
def test_a_server_that_hangs_is_killed_and_returns_has_every_point_once(tmp_path: Path) -> None:
    """Stopped, so that requests pile up in it which the client has long given up; then killed; then back."""
    with mlflow_server(tmp_path) as server:
        made = plan(tmp_path, tracking_uri=server.uri)
        queue, said = open_queue(made), list[str]()
        away, watching = threading.Event(), Mirroring(made, queue.ledger, said.append)
        watching.background.failed = lambda error: (watching._failed(error), away.set())

        def between(number: int) -> None:
            if number == 2:
                assert watching.background.drain(LONG)
                server.signal(signal.SIGSTOP)
            if number == 3:
                assert away.wait(LONG)
                server.signal(signal.SIGCONT)
                assert watching.background.drain(LONG)
                server.kill()
                away.clear()
            if number == 5:
                assert away.wait(LONG)

        study(queue, watching, between)
        assert not all_there(queue.ledger, made.folder, tmp_path)
        server.process = server.start()
        assert watching.close(LONG)
    assert [line.partition(";")[0].rpartition(" ")[2] for line in said] == ["away", "date", "away", "date"]
    assert all_there(queue.ledger, made.folder, tmp_path)


def all_there(ledger: Ledger, folder: Path, out: Path) -> bool:
    """Whether MLflow has every training's epochs and its test values, each point once; never one of them twice."""
    client = MlflowClient(store_uri(out))
    experiment = client.get_experiment_by_name("study").experiment_id
    runs = {run.data.tags["absld.key"]: run for run in client.search_runs([experiment])}
    assert len(runs) == len(client.search_runs([experiment])), "one run a training"
    return all([_has(client, runs.get(row["training"]), row, folder) for row in ledger.trainings()])


def _has(client: MlflowClient, run: Any, row: Row, folder: Path) -> bool:
    if run is None:
        return False
    rows = EpochLog(folder / "trainings" / row["training"] / "epochs.jsonl").read()
    wanted = Counter((name, epoch, value) for epoch, metrics in rows.items() for name, value in metrics.items())
    names = {name for name, _, _ in wanted} | set(run.data.metrics)
    found = Counter(
        (p.key, p.step, p.value) for name in names for p in client.get_metric_history(run.info.run_id, name)
    )
    assert found <= wanted, "nothing twice, nothing else"
    return found == wanted and run.info.status == "FINISHED"


def test_a_request_that_was_given_up_and_arrives_later_changes_nothing(tmp_path: Path) -> None:
    """A server that hung carries out what the client has sent a second time by then: the run and its points."""
    first, second = (Mirror(store_uri(tmp_path), "study", tmp_path, Shown({"a": "max"}, [])) for _ in range(2))
    for late in (first, second):
        late.open()
    second._find = lambda key: second._runs.get(key)  # type: ignore[method-assign]  # it has not seen the other's run
    for made in (first, second):
        made.trial("t", "t", {"rate": 1}, {})
    second._runs["t"].id = first._runs["t"].id
    for made in (first, second):
        made.epochs("t", [(1, {"a": 0.1}), (2, {"a": 0.2})], {1: 1_000, 2: 2_000})
    third = Mirror(store_uri(tmp_path), "study", tmp_path, Shown({"a": "max"}, []))
    third.open()
    third.look_again()
    client = MlflowClient(store_uri(tmp_path))
    (run,) = client.search_runs([third.experiment_id])
    history = client.get_metric_history(run.info.run_id, "a")
    assert [(point.step, point.value, point.timestamp) for point in history] == [(1, 0.1, 1_000), (2, 0.2, 2_000)]
