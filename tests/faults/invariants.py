"""What must hold after every fault: one function, eight invariants, each with its number in the message."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy as sa

from absld_search.core import checkpoints, results
from absld_search.core.metrics import lowest_mean
from absld_search.core.records import EpochLog
from absld_search.search import fronts, ownership, processes
from absld_search.search.arm_study import BUDGET, SUPERSEDES
from absld_search.search.halving import CONFIRM, JUDGED, RACE, RUNG, SEARCH
from absld_search.search.ledger import COMPLETE, FAILED, FINAL, INFEASIBLE, RUNNING, STOPPED, WAITING, Ledger, Row
from absld_search.search.optuna_storage import open_storage

JUDGED_STATES = (COMPLETE, INFEASIBLE)  # of trials that were trained to their end


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
        _states(trials, trainings)
        _nothing_runs(ledger, trials, trainings)
        _optuna(ledger, trials, trainings)
        _tables(folder, trials, trainings)
        if mlflow is not None:
            _mlflow(folder, mlflow, trials)
            _points(folder, mlflow, trainings)
    ledger.engine.dispose()


def _counts(trials: list[Row], trainings: list[Row]) -> None:
    for rows, final in ((trials, FINAL), (trainings, (COMPLETE, FAILED))):
        states = Counter(row["state"] for row in rows)
        assert sum(states[state] for state in final) == len(rows) - states[WAITING], f"(1) {states}"


def _states(trials: list[Row], trainings: list[Row]) -> None:
    """A trial's state is what its trainings say: on rungs alone it has stopped, to its end it has values."""
    for trial in trials:
        mine = [row for row in trainings if row["config"] == trial["config"]]
        whole = [row["state"] for row in mine if row["stage"] == SEARCH]
        rungs = [row["state"] for row in mine if row["stage"] == RUNG]
        told = f"(1) {trial['trial']} is {trial['state']} with {whole} and on rungs {rungs}"
        assert whole or rungs, told
        if trial["state"] == STOPPED:
            assert not whole and set(rungs) == {COMPLETE} and "stopped after" in trial["reason"], told
        elif trial["state"] in JUDGED_STATES:
            assert whole and set(whole) == {COMPLETE} and not set(rungs) - {COMPLETE}, told
        elif trial["state"] == FAILED:
            assert FAILED in (*whole, *rungs) or "nonfinite" in trial["reason"], told


def _nothing_runs(ledger: Ledger, trials: list[Row], trainings: list[Row]) -> None:
    with ledger.engine.connect() as connection:
        leases = connection.execute(sa.select(ownership._leases)).mappings().all()
    alive = [lease for lease in leases if processes.started(lease["pid"]) == lease["started"]]
    if not alive:
        running = [row for row in [*trials, *trainings] if row["state"] == RUNNING]
        assert not running, f"(2) without a live lease: {running}"


def _unique(trials: list[Row], trainings: list[Row]) -> None:
    """A rung is a training of its own length; all others of a configuration and a seed are one."""
    done = Counter(
        (row["config"], row["seed"], row["job"]["schedule"]["epochs"], row["job"]["test"])
        for row in trainings
        if row["state"] == COMPLETE
    )
    assert not [pair for pair, times in done.items() if times > 1], f"(3) {done}"
    assert len({row["trial"] for row in trials}) == len(trials)


def _finite(folder: Path, trials: list[Row], trainings: list[Row]) -> None:
    for trial in trials:
        if trial["state"] in JUDGED_STATES:
            assert trial["objectives"] and all(map(math.isfinite, trial["objectives"].values())), f"(4) {trial}"
        elif trial["state"] != WAITING:
            assert not trial["objectives"], f"(4) values of a trial that was not trained to its end: {trial}"
    for row in trainings:
        if row["state"] == COMPLETE:
            assert row["metrics"] and all(map(math.isfinite, row["metrics"].values())), f"(4) {row}"
            shard = folder / "trainings" / row["training"]
            assert results.read_result(shard) == row["metrics"], f"(4) {row['training']}: stored and told differ"
            classes = results._read_table(shard / "classes.parquet").to_pydict()
            assert classes["n"] and min(classes["n"]) > 0, f"(4) {row['training']}: no n of a class"


def _optuna(ledger: Ledger, trials: list[Row], trainings: list[Row]) -> None:
    """Optuna's studies tell the same story; only points that nobody has taken yet may wait there."""
    for arm in sorted({trial["arm"] for trial in trials}):
        study = optuna.load_study(study_name=f"{ledger.study}.{arm}", storage=open_storage(ledger.url))
        told = study.get_trials(deepcopy=False)
        mine = {trial["number"]: trial for trial in trials if trial["arm"] == arm}
        later = [each for each in told if SUPERSEDES in each.user_attrs]
        by_number: dict[int, list[Any]] = {number: [told[number]] for number in mine}
        for each in later:
            assert each.user_attrs[SUPERSEDES] in mine, f"(2) of a trial that there is not: {each}"
            by_number[each.user_attrs[SUPERSEDES]].append(each)
        for number, trial in mine.items():
            _told(trial, by_number[number], _raced(trial, [mine[each]["config"] for each in mine], trainings))
        rest = {each.state.name for each in told if each.number not in mine and each not in later}
        assert rest <= {"FAIL", "WAITING"}, f"(2) trials of Optuna's that the ledger does not know: {rest}"


def _raced(trial: Row, configs: list[str], trainings: list[Row]) -> str:
    """ "": no race was about this trial; "now": one may still go on, so Optuna has not heard of it; "over": it has."""
    if not any(row["stage"] == RACE and row["config"] == trial["config"] for row in trainings):
        return ""
    confirmed = any(row["stage"] == CONFIRM and row["config"] in configs for row in trainings)
    return "over" if confirmed and all(row["state"] in FINAL for row in trainings) else "now"


def _told(trial: Row, words: list[Any], raced: str) -> None:
    """One trial as Optuna was told it, again and again: what stopped lacks epochs there, so it is on no front of
    Optuna's."""
    first, last, about = words[0], words[-1], f"(1, 2) {trial['trial']} is {trial['state']}, for Optuna"
    lacks = [each.constraints.get(BUDGET, 0.0) for each in words]
    assert lacks == sorted(lacks, reverse=True), f"{about} it lost epochs: {lacks}"
    said = [(each.values, each.constraints) for each in words]
    assert all(a != b for a, b in zip(said, said[1:], strict=False)), f"(2) {trial['trial']} was told twice: {said}"
    if trial["state"] == FAILED:  # on a later rung, Optuna has been told that it stopped
        assert first.state.name == "FAIL" or min(lacks) > 0, f"{about} {first.state.name}, {lacks}"
        return
    if trial["state"] == WAITING:  # one that was promoted has been told that it stopped
        assert first.state.name == "RUNNING" or min(lacks) > 0, f"{about} {first.state.name}"
        return
    assert {each.state.name for each in words} == {"COMPLETE"}, f"{about} {first.state.name}"
    if trial["state"] == STOPPED:
        assert min(lacks) > 0, f"{about} it was trained whole: {lacks}"
        return
    assert lacks[-1] == 0, f"{about} it has stopped, and nothing came after"
    assert raced or lacks.count(0) == 1, f"{about} it was trained whole more than once: {lacks}"
    broken = max(last.constraints.values(), default=0.0) > 0
    assert broken == (trial["state"] == INFEASIBLE) or raced == "now", f"{about} {last.constraints}"
    assert raced == "now" or list(last.values) == list(trial["objectives"].values()), f"(5) {about} {last.values}"


def _tables(folder: Path, trials: list[Row], trainings: list[Row]) -> None:
    if not (folder / "results" / "trials.parquet").exists():
        return
    tables = results.load(folder)
    stored = {row["trial"]: row for row in tables.trials.to_pylist()}
    assert set(stored) == {trial["trial"] for trial in trials}, "(5) Parquet has other trials than the ledger"
    for trial in trials:
        assert stored[trial["trial"]]["state"] == trial["state"], f"(5) {trial['trial']}: another state in Parquet"
        for name, value in (trial["objectives"] or {}).items():
            assert stored[trial["trial"]][f"objective/{name}"] == value, f"(5) {trial['trial']}: {name}"
    told = {row["training"]: row["state"] for row in tables.trainings.to_pylist()}
    assert told == {row["training"]: row["state"] for row in trainings}, "(5) states of trainings differ"
    _front(tables, list(stored.values()))


def _front(tables: results.Tables, trials: list[Row]) -> None:
    """From the images' verdicts, not from the numbers that were told."""
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    images = tables.images.to_pandas().query("split == 'val' and attack == 'apgd-ce'")
    judged = [row for row in tables.trainings.to_pylist() if row["stage"] in JUDGED and row["state"] == COMPLETE]
    seeds = {row["training"]: row["config"] for row in judged}
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
        try:
            checkpoints._read(path)
        except ValueError as error:
            raise AssertionError(f"(6) {path}: {error}") from None
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


def _mlflow(folder: Path, store: Path, trials: list[Row]) -> None:
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


def _points(folder: Path, store: Path, trainings: list[Row]) -> None:
    """Every point of every epoch that was logged, once, and the summary at its end; nothing else."""
    query = """SELECT tags.value, runs.run_uuid, metrics.key, metrics.step, metrics.value FROM runs
        JOIN experiments USING (experiment_id) JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'absld.key'
        LEFT JOIN metrics ON metrics.run_uuid = runs.run_uuid
        WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'"""
    with sqlite3.connect(store) as connection:
        rows = connection.execute(query, (folder.name,)).fetchall()
    runs, points = defaultdict(set), defaultdict(Counter)
    for owner, run, key, step, value in rows:
        runs[owner].add(run)
        points[owner][key, step, value] += key is not None
    for row in trainings:
        name = row["training"]
        assert len(runs[name]) == 1, f"(5) MLflow has {len(runs[name])} runs of {name}"
        found = +points[name]
        logged = EpochLog(folder / "trainings" / name / "epochs.jsonl").read()
        wanted = {(key, epoch, value) for epoch, metrics in logged.items() for key, value in metrics.items()}
        twice = [point for point, times in found.items() if times > 1]
        assert not twice, f"(5) MLflow: {name}: twice: {twice}"
        if row["state"] == COMPLETE:
            assert wanted <= set(found), f"(5) MLflow: {name} lacks {sorted(wanted - set(found))[:5]}"
            summary = set((row["metrics"] or {}).items())
            strange = {(key, value) for key, _, value in set(found) - wanted} - summary
            assert not strange, f"(5) MLflow: {name}: nobody logged {strange}"
