"""What must hold after every fault: one function, eight invariants, each with its number in the message."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from absld_search.core import checkpoints, results
from absld_search.core.metrics import lowest_mean
from absld_search.search import fronts, ownership, processes
from absld_search.search.ledger import COMPLETE, FAILED, RUNNING, WAITING, Ledger
from absld_search.search.queue import SEARCH

OPTUNA = {COMPLETE: "COMPLETE", FAILED: "FAIL", WAITING: "RUNNING"}


def check(folder: Path, *, settled: bool, url: str | None = None, mlflow: Path | None = None) -> None:
    """Raises: AssertionError. `settled`: the driver has ended in an orderly way, so nothing may be half done; without
    it (right after a SIGKILL) only what must hold at any moment is looked at."""
    ledger = Ledger(url or f"sqlite:///{folder / 'study.db'}", folder.name)
    trials, trainings = ledger.trials(), ledger.trainings()
    _unique(trials, trainings)
    _finite(folder, trials, trainings)
    _checkpoints(folder, settled)
    _inside(folder)
    if settled:
        _counts(trials, trainings)
        _nothing_runs(ledger, trials, trainings)
        _optuna(ledger, trials)
        _tables(folder, trials, trainings)
        if mlflow is not None:
            _mlflow(folder, mlflow, trials)
    ledger.engine.dispose()


def _counts(trials: list[Any], trainings: list[Any]) -> None:
    for rows in (trials, trainings):
        states = Counter(row["state"] for row in rows)
        assert states[COMPLETE] + states[FAILED] == len(rows) - states[WAITING], f"(1) {states}"


def _nothing_runs(ledger: Ledger, trials: list[Any], trainings: list[Any]) -> None:
    with ledger.engine.connect() as connection:
        leases = connection.execute(sa.select(ownership._leases)).mappings().all()
    alive = [lease for lease in leases if processes.started(lease["pid"]) == lease["started"]]
    if not alive:
        running = [row for row in [*trials, *trainings] if row["state"] == RUNNING]
        assert not running, f"(2) without a live lease: {running}"


def _unique(trials: list[Any], trainings: list[Any]) -> None:
    done = Counter((row["config"], row["seed"], row["stage"]) for row in trainings if row["state"] == COMPLETE)
    assert not [pair for pair, times in done.items() if times > 1], f"(3) {done}"
    assert len({row["trial"] for row in trials}) == len(trials)


def _finite(folder: Path, trials: list[Any], trainings: list[Any]) -> None:
    for trial in trials:
        if trial["state"] == COMPLETE:
            assert trial["objectives"] and all(map(math.isfinite, trial["objectives"].values())), f"(4) {trial}"
    for row in trainings:
        if row["state"] == COMPLETE:
            assert row["metrics"] and all(map(math.isfinite, row["metrics"].values())), f"(4) {row}"
            shard = folder / "trainings" / row["training"]
            assert results.read_result(shard) == row["metrics"], f"(4) {row['training']}: stored and told differ"
            classes = results._read_table(shard / "classes.parquet").to_pydict()
            assert classes["n"] and min(classes["n"]) > 0, f"(4) {row['training']}: no n of a class"


def _optuna(ledger: Ledger, trials: list[Any]) -> None:
    """Optuna's studies tell the same story; only points that nobody has taken yet may wait there."""
    query = "SELECT study_name, number, state FROM trials JOIN studies ON trials.study_id = studies.study_id"
    with ledger.engine.connect() as connection:
        rows = connection.execute(sa.text(query)).all()
    mine = {(name, number): state for name, number, state in rows if name.startswith(f"{ledger.study}.")}
    for trial in trials:
        state = mine.pop((f"{ledger.study}.{trial['arm']}", trial["number"]), None)
        assert state == OPTUNA[trial["state"]], f"(1, 2) {trial['trial']} is {trial['state']}, for Optuna {state}"
    assert set(mine.values()) <= {"FAIL", "WAITING"}, f"(2) trials of Optuna's that the ledger does not know: {mine}"


def _tables(folder: Path, trials: list[Any], trainings: list[Any]) -> None:
    if not (folder / "results" / "trials.parquet").exists():
        return
    tables = results.load(folder)
    stored = {row["trial"]: row for row in tables.trials.to_pylist()}
    assert set(stored) == {trial["trial"] for trial in trials}, "(5) Parquet has other trials than the ledger"
    for trial in trials:
        for name, value in (trial["objectives"] or {}).items():
            assert stored[trial["trial"]][f"objective/{name}"] == value, f"(5) {trial['trial']}: {name}"
    told = {row["training"]: row["state"] for row in tables.trainings.to_pylist()}
    assert told == {row["training"]: row["state"] for row in trainings}, "(5) states of trainings differ"
    _front(tables, list(stored.values()))


def _front(tables: results.Tables, trials: list[Any]) -> None:
    """From the images' verdicts, not from the numbers that were told."""
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    images = tables.images.to_pandas().query("split == 'val' and attack == 'apgd-ce'")
    seeds = {row["training"]: row["config"] for row in tables.trainings.to_pylist() if row["stage"] == SEARCH}
    found = []
    for trial in complete:
        per_seed = [images[images.training == key] for key, config in seeds.items() if config == trial["config"]]
        accuracies = [rows.groupby("label").correct.mean() for rows in per_seed]
        pairs = zip(accuracies, per_seed, strict=True)
        mean = np.mean([[lowest_mean(classes, 0.2), rows.correct.mean()] for classes, rows in pairs], axis=0)
        told = [trial["objective/robust_cvar"], trial["objective/robust_accuracy"]]
        assert np.allclose(mean, told, atol=1e-9), f"(7) {trial['trial']}: {mean} from the images, {told} told"
        found.append(told)
    mask = fronts.non_dominated(np.array(found), ["max", "max"]) if found else []
    front = {trial["trial"] for trial, on in zip(complete, mask, strict=True) if on}
    assert front == {trial["trial"] for trial in trials if trial["pareto"]}, "(7) the front published is another"


def _checkpoints(folder: Path, settled: bool) -> None:
    for path in folder.glob("trainings/*/epoch-*.pt"):
        assert checkpoints._read(path), f"(6) {path}"
    if settled:
        for shard in folder.glob("trainings/*"):
            complete = results.read_result(shard) is not None
            assert not (complete and list(shard.glob("epoch-*.pt"))), f"(6) {shard} is complete and keeps checkpoints"
        left = [*folder.glob(".*.tmp"), *folder.glob("results/.*.tmp")]
        assert not left, f"(6) half-written files are left: {left}"


def _inside(folder: Path) -> None:
    """Nothing of ours beside the study's folder but what `--out` is for."""
    known = {"mlflow.db", "mlflow.lock", "mlflow.db-journal", "cache", "home"}
    strange = [path for path in folder.parent.iterdir() if path.name not in known]
    strange = [path for path in strange if not (path / "driver.lock").exists()]
    assert not strange, f"(8) outside the study: {strange}"


def _mlflow(folder: Path, store: Path, trials: list[Any]) -> None:
    query = """SELECT runs.name, metrics.key, metrics.value FROM runs
        JOIN experiments USING (experiment_id) JOIN tags ON tags.run_uuid = runs.run_uuid
        LEFT JOIN latest_metrics AS metrics ON metrics.run_uuid = runs.run_uuid
        WHERE experiments.name = ? AND tags.key = 'absld.kind' AND tags.value = 'trial'"""
    with sqlite3.connect(store) as connection:
        rows = connection.execute(query, (folder.name,)).fetchall()
    assert {name for name, _, _ in rows} == {trial["trial"] for trial in trials}, "(5) MLflow has other trials"
    told = {(name, key): value for name, key, value in rows}
    for trial in trials:
        for name, value in (trial["objectives"] or {}).items():
            assert told[trial["trial"], name] == value, f"(5) MLflow: {trial['trial']}: {name}"
