"""Seconds and memory of a report of a large study, made up: 10,000 trials, four arms, 100 classes, 10,000 test images.

python -m benchmarks.report

The tables are written as a driver would have: one row group for each training, epochs and images of the search too. The
report is made by the real command in a process of its own, with all figures for papers; its peak memory is the
kernel's figure for that process.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from absld_search.core import results
from absld_search.search import fronts

ARMS = ("dual", "shared", "product", "rslad")
OBJECTIVES = {"worst_tenth_robust_accuracy": "max", "robust_accuracy": "max"}
TEST_ATTACKS = ("clean", "pgd20", "cw20", "apgd-ce", "apgd-top3")
SEEDS = 8
VAL_IMAGES = 10  # of a class


def trials_of(arm: str, count: int) -> list[dict[str, Any]]:
    """An arm's trials: one in fifty has failed."""
    random = np.random.default_rng(len(arm))
    rows = []
    for number in range(count):
        worst = float(random.beta(4, 12))
        params = {
            "temperature_lr": float(10 ** random.uniform(-2, 0)),
            "initial_temperature_adv": float(random.uniform(0.5, 2)),
            "initial_temperature_clean": float(random.uniform(0.5, 2)),
        }
        failed = number % 50 == 7
        values = (None, None) if failed else (worst, 0.5 - (worst - 0.2) ** 2 - 0.05 * float(random.random()))
        rows.append(
            {
                "trial": f"{arm}-{number:03d}",
                "arm": arm,
                "number": number,
                "config": f"{arm}{number:06d}",
                "state": "FAILED" if failed else "COMPLETE",
                "reason": f"logits are not finite at epoch {number % 30}" if failed else "",
                "params": json.dumps(params),
                "chosen": False,
                "pareto": False,
                "pareto_arm": False,
                **{f"objective/{name}": value for name, value in zip(OBJECTIVES, values, strict=True)},
            }  # fmt: skip
        )
    return rows


def mark(rows: list[dict[str, Any]], flag: str) -> None:
    """Set a front's flag, and of an arm's front the choice."""
    directions = list(OBJECTIVES.values())
    values = np.array([[row[f"objective/{name}"] for name in OBJECTIVES] for row in rows], dtype=float)
    for row, on in zip(rows, fronts.non_dominated(values, directions), strict=True):
        row[flag] = bool(on)
    if flag == "pareto_arm":
        rows[fronts.knee(values, directions)]["chosen"] = True


def trainings_of(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of the search for each trial, and of the choices the confirm stage's."""
    rows = [_training(trial, 0, "search") for trial in trials]
    chosen = [trial for trial in trials if trial["chosen"]]
    return rows + [_training(trial, 1000 + seed, "confirm") for trial in chosen for seed in range(SEEDS)]


def _training(trial: dict[str, Any], seed: int, stage: str) -> dict[str, Any]:
    return {
        "training": f"{trial['config']}-s{seed}", "config": trial["config"], "seed": seed, "stage": stage,
        "state": trial["state"], "reason": trial["reason"], "attempts": 1, "epochs": 30, "seconds": 240.0,
    }  # fmt: skip


class Shard:
    """The long tables of any training, made once; only its key changes."""

    def __init__(self, classes: int, split: str, attacks: tuple[str, ...], of_class: int, epochs: int) -> None:
        random = np.random.default_rng(0)
        names = [f"temperature_{side}/class_{c:02d}" for side in ("adv", "clean") for c in range(classes)]
        names += [f"train/clean_accuracy/class_{c:02d}" for c in range(classes)]
        values = random.random((epochs, len(names)))
        self.tables = {
            "epochs": {
                "epoch": np.repeat(np.arange(1, epochs + 1, dtype=np.int32), len(names)), "metric": names * epochs,
                "value": values.ravel(),
            },
            "classes": self._classes(classes, split, attacks, of_class, random),
            "images": self._images(classes, split, attacks, of_class, random),
        }  # fmt: skip

    @staticmethod
    def _classes(classes: int, split: str, attacks: tuple[str, ...], of_class: int, random: Any) -> dict[str, Any]:
        count = classes * len(attacks)
        return {
            "split": [split] * count, "attack": np.repeat(attacks, classes).tolist(),
            "class": list(range(classes)) * len(attacks), "n": [of_class] * count, "accuracy": random.random(count),
        }  # fmt: skip

    @staticmethod
    def _images(classes: int, split: str, attacks: tuple[str, ...], of_class: int, random: Any) -> dict[str, Any]:
        images = classes * of_class
        count = images * len(attacks)
        labels = np.repeat(np.arange(classes, dtype=np.int32), of_class)
        return {
            "split": [split] * count, "attack": np.repeat(attacks, images).tolist(),
            "image": np.tile(np.arange(images), len(attacks)), "label": np.tile(labels, len(attacks)),
            "correct": random.random(count) < np.tile(np.linspace(0.2, 0.7, classes)[labels], len(attacks)),
        }  # fmt: skip

    def write(self, writers: dict[str, pq.ParquetWriter], key: str) -> None:
        """This training's row group in each of the tables."""
        for name, columns in self.tables.items():
            schema = results.SHARDS[name]
            length = len(next(iter(columns.values())))
            columns = {"training": pa.array([key]).take(pa.array(np.zeros(length, dtype=np.int64))), **columns}
            arrays = [columns[field.name] for field in schema]
            typed = [pa.array(array, field.type) for array, field in zip(arrays, schema, strict=True)]
            writers[name].write_table(pa.table(typed, schema=schema))


def study(folder: Path, count: int, classes: int) -> None:
    """Write the whole study."""
    trials = [row for arm in ARMS for row in trials_of(arm, count // len(ARMS))]
    complete = [row for row in trials if row["state"] == "COMPLETE"]
    mark(complete, "pareto")
    for arm in ARMS:
        mark([row for row in complete if row["arm"] == arm], "pareto_arm")
    trainings = trainings_of(trials)
    results.combine(folder, trials, [{**row, "state": "FAILED"} for row in trainings], OBJECTIVES)
    pq.write_table(pa.Table.from_pylist(trainings, results.TRAININGS), folder / "results" / "trainings.parquet")
    shards = {
        "search": Shard(classes, "val", ("clean", "apgd-ce"), VAL_IMAGES, 30),
        "confirm": Shard(classes, "test", TEST_ATTACKS, 100, 30),
    }
    paths = {name: folder / "results" / f"{name}.parquet" for name in results.SHARDS}
    writers = {name: pq.ParquetWriter(path, results.SHARDS[name], compression="zstd") for name, path in paths.items()}
    for row in trainings:
        if row["state"] == "COMPLETE":
            shards[row["stage"]].write(writers, row["training"])
    for writer in writers.values():
        writer.close()
    results.write_facts(folder, facts(classes))


def facts(classes: int) -> dict[str, Any]:
    """What `study.json` says."""
    return {
        "study": "made_up", "question": "Is a report of a large study quick?", "space": "made_up",
        "workload": "cifar100", "workload_summary": "made up", "objectives": OBJECTIVES, "arms": list(ARMS),
        "fixed": {"method": "absld"}, "classes": [f"class {c}" for c in range(classes)], "eps": 8 / 255,
        "search_seeds": 1, "confirm_seeds": SEEDS, "command": "", "versions": {}, "selection": "knee point",
        "temperature_bounds": [0.5, 5.0],
    }  # fmt: skip


def reported(folder: Path) -> tuple[float, float, float]:
    """Seconds of the clock and of CPU, and peak memory in GB, of the command."""
    before, began = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "analysis.report", str(folder)], check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime
    return time.perf_counter() - before, cpu, used.ru_maxrss * 1024 / 1e9


@click.command(help=__doc__)
@click.option("--trials", default=10_000, show_default=True)
@click.option("--classes", default=100, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="How often the report is made.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the study is kept; made only where it is not.")
def main(trials: int, classes: int, repeats: int, folder: Path | None) -> None:
    """Make the study, report it, say what it took."""
    place = folder or Path(tempfile.mkdtemp())
    try:
        if not (place / "study.json").exists():
            study(place, trials, classes)
        size = sum(path.stat().st_size for path in (place / "results").iterdir()) / 1e6
        rows = {
            name: pq.ParquetFile(place / "results" / f"{name}.parquet").metadata.num_rows for name in results.SHARDS
        }
        click.echo(f"{trials} trials, {classes} classes; {size:.0f} MB of tables: {rows}")
        for _ in range(repeats):
            seconds, cpu, memory = reported(place)
            page = (place / "report" / "index.html").stat().st_size / 1e6
            click.echo(f"report: {seconds:.1f} s ({cpu:.1f} s of CPU), {memory:.2f} GB at most, page {page:.1f} MB")
    finally:
        if folder is None:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
