"""Racing against a fixed number of seeds, on configurations whose true means are known: `python -m benchmarks.racing`.

A repetition draws configurations, each with a true worst-class and mean robust accuracy, and noise with the covariance
that the recorded trainings of digits (`benchmarks.replay_record`) show over seeds. Both procedures then name the front
of the means that they have seen. An error is a configuration that a front gets wrong: on it and not on the true one, or
the other way round, by more than `slack` in every objective, so that a coin's toss between equals counts for nobody.
"""

from __future__ import annotations

import functools
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pyarrow.parquet as pq
from scipy.stats import binomtest

from absld_search.search import fronts, racing
from benchmarks import pages, search_page
from benchmarks.replay_record import TABLE

SIDES = ("max", "max")
FRESH = 1000  # the first case on which nothing was chosen
COLUMNS = ["worst_class_robust_accuracy", "robust_accuracy"]


class Result(NamedTuple):
    """Of one repetition: evaluations spent, and whether the front was wrong."""

    evaluations: int
    wrong: bool


@functools.cache
def noise(table: Path = TABLE) -> np.ndarray:
    """(2, 2): covariance over seeds of the recorded whole trainings, pooled over configurations."""
    rows = pq.read_table(table, columns=["configuration", "schedule", "epoch", *COLUMNS]).to_pylist()
    whole = max(row["schedule"] for row in rows)
    by: dict[int, list[list[float]]] = {}
    for row in rows:
        if row["epoch"] == row["schedule"] == whole:
            by.setdefault(row["configuration"], []).append([row[name] for name in COLUMNS])
    return racing.pooled(map(np.array, by.values())).covariance


def spread() -> np.ndarray:
    """(2,): standard deviations of one seed."""
    return np.sqrt(np.diag(noise()))


def trained(draw: np.random.Generator, mean: np.ndarray, seeds: int) -> np.ndarray:
    """(seeds, 2): what trainings of a configuration come to."""
    return draw.multivariate_normal(mean, noise(), seeds, method="eigh")


def means(count: int, seed: int) -> np.ndarray:
    """(count, 2): true worst-class and mean robust accuracies that trade against each other."""
    draw = np.random.default_rng(seed)
    trade, quality = draw.uniform(-1, 1, count), draw.normal(0, 1, count)
    return np.stack([0.40 + 0.10 * trade + 0.08 * quality, 0.60 - 0.04 * trade + 0.03 * quality], axis=1)


def wrong(true: np.ndarray, found: list[int], slack: float) -> bool:
    """Whether a named configuration is clearly beaten, or a clear member of the true front is left out unreplaced.

    Clear: by more than `slack` standard deviations of one seed in both objectives.
    """
    margin = slack * spread()
    front = true[fronts.non_dominated(true, SIDES)]
    beaten = any(_clearly(front, true[i], margin).any() for i in found)
    missed = any(not (true[found] >= member - margin).all(axis=1).any() for member in front)
    return bool(beaten or missed)


def _clearly(front: np.ndarray, point: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Which of the front beat the point by the margin."""
    return (front >= point + margin).all(axis=1) & (front > point + margin).any(axis=1)


def named(gains: dict[str, np.ndarray]) -> list[int]:
    """The front of the means."""
    seen = np.array([each.mean(axis=0) for each in gains.values()])
    return np.flatnonzero(fronts.non_dominated(seen, SIDES)).tolist()


def fixed(true: np.ndarray, seeds: int, seed: int, slack: float) -> Result:
    """Every configuration gets the same number of seeds."""
    draw = np.random.default_rng([seed, 1])
    gains = {str(i): trained(draw, mean, seeds) for i, mean in enumerate(true)}
    return Result(seeds * len(true), wrong(true, named(gains), slack))


def raced(true: np.ndarray, most: int, seed: int, slack: float, delta: float = racing.DELTA) -> Result:
    """One seed each, then more for whose place is in doubt."""
    draw = np.random.default_rng([seed, 1])
    gains = {str(i): trained(draw, mean, 1) for i, mean in enumerate(true)}
    while (name := racing.next_contender(racing.Samples(gains), delta=delta, most=most)) is not None:
        gains[name] = np.vstack([gains[name], trained(draw, true[int(name)], 1)])
    return Result(sum(map(len, gains.values())), wrong(true, named(gains), slack))


def compare(repetitions: int, count: int = 20, seeds: int = 8, most: int = racing.MOST_SEEDS, slack: float = 0.5,
            delta: float = racing.DELTA, first: int = 0) -> dict[str, list[Result]]:  # fmt: skip
    """Both procedures on the same true means and the same first seeds; cases from the number `first` on."""
    cases = [(means(count, seed), seed) for seed in range(first, first + repetitions)]
    return {
        "fixed": [fixed(true, seeds, seed, slack) for true, seed in cases],
        "raced": [raced(true, most, seed, slack, delta) for true, seed in cases],
    }


def summary(found: dict[str, list[Result]], configurations: int) -> list[dict[str, Any]]:
    """A row for each procedure; the interval of an error rate is Wilson's, at 95 %."""
    rows = []
    for name, results in found.items():
        spent, wrongs = [result.evaluations for result in results], sum(result.wrong for result in results)
        low, high = binomtest(wrongs, len(results)).proportion_ci(method="wilson")
        row = {"configurations": configurations, "procedure": name, "n": len(results), "wrong": wrongs / len(results)}
        row |= {"interval": (float(low), float(high)), "least": min(spent), "most": max(spent)}
        rows.append({**row, "evaluations": statistics.mean(spent)})
    return rows


@click.command()
@click.option("--repetitions", default=200, show_default=True)
@click.option("--configurations", default=20, show_default=True)
@click.option("--seeds", default=8, show_default=True, help="Of every configuration, in the fixed procedure.")
@click.option("--most", default=racing.MOST_SEEDS, show_default=True, help="Of one configuration, in the race.")
@click.option("--slack", default=0.5, show_default=True, help="In standard deviations of one seed.")
@click.option("--delta", default=racing.DELTA, show_default=True)
@click.option(
    "--first", default=FRESH, show_default=True, help="Number of the first case; the delta was chosen on those from 0."
)
@click.option("--out", type=click.Path(path_type=Path), default=search_page.PAGE.results, show_default=False)
def main(
    repetitions: int, configurations: int, seeds: int, most: int, slack: float, delta: float, first: int, out: Path
) -> None:
    """Evaluations and error rates, into docs/results/search/racing.json and docs/search.md."""
    rows = summary(compare(repetitions, configurations, seeds, most, slack, delta, first), configurations)
    kept = [row for row in pages.read(out, "racing").get("rows", []) if row["configurations"] != configurations]
    rows = sorted([*kept, *rows], key=lambda row: row["configurations"])
    found = {
        "seeds": seeds,
        "most": most,
        "slack": slack,
        "delta": delta,
        "first": first,
        "noise": spread().tolist(),
        "rows": rows,
    }
    found["correlation"] = float(noise()[0, 1] / spread().prod())
    search_page.PAGE.write(out, "racing", found)
    click.echo(search_page.racing(found))


if __name__ == "__main__":
    main()
