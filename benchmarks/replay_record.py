"""Record a space once, so that searches can be replayed on real curves: `python -m benchmarks.replay_record`.

Configurations are drawn from the whole ABSLD space (Sobol, the papers' defaults first), and each is trained at every
seed and every rung's length with a schedule of that length. Rows: configuration, parameters, seed, epochs of the
schedule, epoch looked at, seconds, and what val said. Interrupted, it goes on where it was: a training that is complete
answers at once. With --only-complete nothing is trained: the table holds the first configurations that are there whole.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import qmc

from absld_search import catalog
from absld_search.core.metrics import NAMES
from absld_search.core.records import EpochLog
from absld_search.core.teacher_making import ensure_teacher
from absld_search.core.trial import TrialConfig, run_trial
from absld_search.search import plan as plans
from absld_search.search.plan import Arm, Plan, Request
from absld_search.space import Choice, LogUniform, holds

TABLE = Path(__file__).parent / "data" / "digits_curves.parquet"
KEPT = [name for name in NAMES if name.startswith("clean") or "robust" in name]
Row = dict[str, Any]


def resolved(workload: str, configurations: int) -> Plan:
    """The plan of a search over the whole ABSLD space in three rungs; nothing of it touches a disk."""
    entry = catalog.load("absld")
    words: Row = {"trials": configurations, "stopping": "mo-asha", "storage": "sqlite://"}
    request = Request(entry.name, entry.question, workload, "replay", Path("."), tracking_uri="", **words)
    return plans.resolve(request, entry.space)


def configurations(made: Plan) -> list[Row]:
    """The parameters of every configuration."""
    (arm,) = made.arms
    cube = qmc.Sobol(len(arm.tuned), rng=np.random.default_rng(0)).random(arm.trials)
    drawn = [_point(arm, place) for place in cube]
    return [*map(dict, arm.first), *drawn][: arm.trials]


def _point(arm: Arm, place: np.ndarray) -> Row:
    """The place in the unit cube as parameters."""
    params: Row = {}
    for share, (name, how) in zip(place, arm.tuned.items(), strict=True):
        if not holds(how, {**arm.words, **params}):
            continue
        if isinstance(how, Choice):
            params[name] = how.options[int(share * len(how.options))]
        elif isinstance(how, LogUniform):
            params[name] = float(how.low * (how.high / how.low) ** share)
        else:
            params[name] = float(how.low + (how.high - how.low) * share)  # type: ignore[union-attr]
    return params


def trainings(made: Plan, seeds: int) -> list[tuple[int, Row, TrialConfig]]:
    """(configuration, parameters, training), the shortest first within a configuration."""
    (arm,) = made.arms
    rungs = made.rungs(arm)
    found = []
    for number, params in enumerate(configurations(made)):
        for epochs in rungs:
            words = {**arm.words, **params, "epochs": epochs}
            found += [(number, params, made.config(words, seed)) for seed in range(seeds)]
    return found


def trained(config: TrialConfig, folder: Path) -> Row:
    """The metrics of a training, which is trained now unless it is complete; how long that took lies beside it."""
    began = time.monotonic()
    found: Row = run_trial(config, folder, lambda epoch, metrics: None)
    took = folder / "seconds"
    if not took.exists():  # of the first time; a complete training answers at once
        took.write_text(str(time.monotonic() - began))
    return found


def complete(todo: list[tuple[int, Row, TrialConfig]], work: Path) -> list[tuple[int, Row, TrialConfig]]:
    """The trainings of the first configurations, up to one of which something is missing."""
    missing = (n for n, _, config in todo if not (work / config.key / "seconds").exists())
    first = next(missing, len(todo))
    return [each for each in todo if each[0] < first]


def rows(number: int, params: Row, config: TrialConfig, folder: Path, found: Row) -> list[Row]:
    """What a training said, wherever it looked at val."""
    took = folder / "seconds"
    facts = {"configuration": number, "params": json.dumps(params, sort_keys=True), "seed": config.seed}
    facts |= {"schedule": config.schedule.epochs, "seconds": float(took.read_text())}
    curve = {
        epoch: metrics for epoch, metrics in EpochLog(folder / "epochs.jsonl").read().items() if KEPT[0] in metrics
    }
    curve[config.schedule.epochs] = found
    return [{**facts, "epoch": epoch, **{name: metrics.get(name) for name in KEPT}} for epoch, metrics in curve.items()]


@click.command()
@click.option("--workload", default="digits", show_default=True)
@click.option("--configurations", "count", default=208, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/replay"), show_default=True)
@click.option("--table", type=click.Path(path_type=Path), default=TABLE, show_default=False)
@click.option("--part", default="0/1", show_default=True, help="I/N: this process's share; 0/1 writes the table.")
@click.option("--only-complete", is_flag=True, help="Train nothing; a table of what is there.")
def main(workload: str, count: int, seeds: int, work: Path, table: Path, part: str, only_complete: bool) -> None:
    """Record; run several with --part 0/2, 1/2 on several cores, then once more without to write the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    made = resolved(workload, count)
    if not only_complete:
        for teacher in made.teachers():
            ensure_teacher(made.setting, teacher, "cpu", click.echo, made.folders)
    index, parts = map(int, part.split("/"))
    todo, found = trainings(made, seeds), list[Row]()
    todo = complete(todo, work) if only_complete else todo
    for turn, (number, params, config) in enumerate(todo):
        if turn % parts == index:
            found += rows(number, params, config, work / config.key, trained(config, work / config.key))
            if turn % 50 == 0:
                click.echo(f"{turn}/{len(todo)}")
    if parts == 1:
        write(found, table)


def write(found: list[Row], table: Path) -> None:
    """The table, and how much training is in it."""
    table.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(found), table, compression="zstd")
    seconds = {(row["configuration"], row["seed"], row["schedule"]): row["seconds"] for row in found}
    click.echo(
        f"{table.name}: {len(found)} rows, {table.stat().st_size / 1000:.0f} kB, {len(seconds)} trainings, "
        f"{sum(seconds.values()):.0f} s of training"
    )


if __name__ == "__main__":
    main()
