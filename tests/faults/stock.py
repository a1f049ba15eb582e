"""The same faults on stock Ray Tune + OptunaSearch + MLflowLoggerCallback, set up as their manuals say.

`python -m tests.faults.stock measure kill --rounds 5` kills the driver and restores it with `Tuner.restore`;
`nan` and `inf` make one objective of one trial undefined; `sigterm` ends it as a scheduler does; `twice` starts a
second driver beside the first; `mlflow` kills MLflow's server for a minute.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS, SECONDS = 6, 20, 0.25
FAULTS = ["kill", "sigterm", "twice", "mlflow", "nan", "inf"]
SERVER = "STOCK_MLFLOW"  # variable: the server to log to


def train(config: dict[str, Any]) -> None:
    """Epochs that only leave their marks, a checkpoint after each."""
    from ray import tune

    name, start = tune.get_context().get_trial_id(), 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            start = int(Path(folder, "epoch").read_text())
    for epoch in range(start + 1, EPOCHS + 1):
        time.sleep(SECONDS)
        with open(Path(config["marks"]) / name, "a", encoding="utf-8") as marks:
            marks.write(f"{epoch}\n")
        bad = float(config["bad"]) if config["bad"] and config["x"] > 0.5 and epoch == EPOCHS else config["x"]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "epoch").write_text(str(epoch))
            report = {"a": bad, "b": 1 - config["x"], "epoch": epoch}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def drive(out: Path, bad: str) -> None:
    """Begin, or restore, as the manuals say."""
    import optuna
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    if tune.Tuner.can_restore(str(out / "tune")):
        tune.Tuner.restore(str(out / "tune"), train, resume_unfinished=True, resume_errored=True).fit()
        return
    (out / "marks").mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{out / 'optuna.db'}")
    search = OptunaSearch(metric=["a", "b"], mode=["max", "max"], storage=storage, study_name="stock", seed=0)
    mlflow = MLflowLoggerCallback(tracking_uri=os.environ.get(SERVER, store(out)), experiment_name="stock")
    tune.Tuner(
        train,
        param_space={"x": tune.uniform(0, 1), "marks": str(out / "marks"), "bad": bad},
        tune_config=tune.TuneConfig(search_alg=search, num_samples=TRIALS, max_concurrent_trials=2),
        run_config=tune.RunConfig(name="tune", storage_path=str(out), callbacks=[mlflow], verbose=0),
    ).fit()


def store(out: Path) -> str:
    return f"sqlite:///{out / 'mlflow.db'}"


def start(out: Path, bad: str = "", **more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **more}
    line = [sys.executable, "-m", "tests.faults.stock", "drive", str(out), "--bad", bad]
    with open(out.parent / f"{out.name}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def epochs(out: Path) -> list[list[int]]:
    return [[int(epoch) for epoch in path.read_text().split()] for path in out.glob("marks/*")]


def injected(out: Path, fault: str, rng: random.Random) -> int | None:
    """Do it to a first driver; its exit code."""
    if fault == "mlflow":
        return without_mlflow(out)
    process = start(out, fault if fault in ("nan", "inf") else "")
    if fault in ("nan", "inf"):
        return process.wait(timeout=900)
    under_way(out, process, 1 if fault == "twice" else rng.randint(EPOCHS // 2, EPOCHS * TRIALS // 2))
    if fault == "twice":
        second = start(out)
        codes = process.wait(timeout=900), second.wait(timeout=900)
        return max(codes)
    process.send_signal(signal.SIGKILL if fault == "kill" else signal.SIGTERM)
    return process.wait(timeout=900)


def under_way(out: Path, process: subprocess.Popen[bytes], moment: int) -> None:
    """Wait until so many epochs have been trained in all."""
    while process.poll() is None and sum(map(len, epochs(out))) < moment:
        time.sleep(0.1)


def without_mlflow(out: Path) -> int:
    """MLflow's server, on a store in `out`, dies amid the run and comes back after a minute."""
    from tests.faults.ray_rounds import AWAY_SECONDS
    from tests.search.test_mirroring import mlflow_server

    with mlflow_server(out) as server:
        process = start(out, **{SERVER: server.uri})
        under_way(out, process, EPOCHS)
        server.kill()
        time.sleep(AWAY_SECONDS)
        server.process = server.start()
        return process.wait(timeout=900)


def counted(out: Path) -> dict[str, object]:
    """What the stores say when all is over."""
    import optuna

    study = optuna.load_study(study_name="stock", storage=f"sqlite:///{out / 'optuna.db'}")
    states = Counter(trial.state.name for trial in study.get_trials())
    seen = epochs(out)
    with sqlite3.connect(out / "mlflow.db") as found:
        runs = Counter(status for (status,) in found.execute("SELECT status FROM runs"))
        (points,) = found.execute("SELECT COUNT(*) FROM metrics WHERE key = 'epoch'").fetchone()
    front = [trial.values for trial in study.best_trials]
    return {
        "optuna": dict(states),
        "zombies": states["RUNNING"],
        "tune_trials": len(seen),
        "asked_for": TRIALS,
        "epochs_repeated": sum(len(trial) - len(set(trial)) for trial in seen),
        "epochs_missing": EPOCHS * TRIALS - sum(len(set(trial)) for trial in seen),
        "mlflow_runs": dict(runs),
        "mlflow_epochs": points,
        "infinite_on_front": sum(any(abs(value) == float("inf") for value in values) for values in front),
    }


@click.group()
def main() -> None:
    """Stock Ray Tune under faults."""


@main.command("drive")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bad", default="")
def drive_command(out: Path, bad: str) -> None:
    """One start."""
    drive(out, bad)


@main.command()
@click.argument("fault", type=click.Choice(FAULTS))
@click.option("--rounds", default=5, show_default=True)
@click.option("--record", type=click.Path(path_type=Path))
def measure(fault: str, rounds: int, record: Path | None) -> None:
    """Inject FAULT once in each of ROUNDS studies, restore until done, and count."""
    for number in range(rounds):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            out = Path(place) / "runs"
            out.mkdir()
            first = injected(out, fault, random.Random(number))
            again = start(out).wait(timeout=900) if fault in ("kill", "sigterm") else None
            line = {"stock": fault, "round": number, "first_exit": first, "restored_exit": again, **counted(out)}
        click.echo(json.dumps(line))
        if record:
            with open(record, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    main()
