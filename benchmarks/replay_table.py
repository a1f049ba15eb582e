"""A recorded space as a table that a search can be replayed on, and what lies near to what a sampler proposes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from absld_search.search import fronts
from absld_search.search.plan import Plan
from absld_search.space import Choice, LogUniform
from benchmarks.replay_record import resolved

OBJECTIVES = ("robust_cvar", "robust_accuracy")


@dataclass
class Records:
    """The table: values (N, seeds, rungs, k) of N configurations, more is better."""

    params: list[dict[str, Any]]
    epochs: tuple[int, ...]
    values: np.ndarray
    made: Plan

    @classmethod
    def read(cls, path: Path, workload: str) -> Records:
        """Only looks at the end of a training; the curve in between is for other questions."""
        rows = [row for row in pq.read_table(path).to_pylist() if row["epoch"] == row["schedule"]]
        epochs = tuple(sorted({row["schedule"] for row in rows}))
        seeds = 1 + max(row["seed"] for row in rows)
        count = 1 + max(row["configuration"] for row in rows)
        values = np.full((count, seeds, len(epochs), len(OBJECTIVES)), np.nan)
        params: list[dict[str, Any]] = [{} for _ in range(count)]
        for row in rows:
            params[row["configuration"]] = json.loads(row["params"])
            place = (row["configuration"], row["seed"], epochs.index(row["schedule"]))
            values[place] = [row[name] for name in OBJECTIVES]
        return cls(params, epochs, values, resolved(workload, count))

    @cached_property
    def truth(self) -> np.ndarray:
        """(N, k): what a whole training is worth, as a mean over seeds."""
        return self.values[:, :, -1].mean(axis=1)

    @cached_property
    def volume(self) -> float:
        """The hypervolume of all, above the worst recorded value of each objective."""
        return self._volume(self.truth)

    def covered(self, configurations: list[int]) -> float:
        """Their share of the hypervolume of all."""
        return self._volume(self.truth[configurations]) / self.volume

    def _volume(self, values: np.ndarray) -> float:
        return fronts.hypervolume(values, ["max"] * len(OBJECTIVES), self.truth.min(axis=0))


@dataclass
class Neighbours:
    """Recorded configurations by nearness, each handed out once."""

    records: Records
    left: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        (self.arm,) = self.records.made.arms
        self.left = set(range(len(self.records.params)))
        self.places = np.array([self._place(params) for params in self.records.params])

    def _place(self, params: dict[str, Any]) -> list[float]:
        """A point in the unit cube; a choice is one axis per option, what does not exist is in the middle."""
        found: list[float] = []
        for name, how in self.arm.tuned.items():
            if isinstance(how, Choice):
                found += [float(params.get(name) == option) / np.sqrt(2) for option in how.options]
            elif name not in params:
                found.append(0.5)
            else:
                scale = np.log if isinstance(how, LogUniform) else float
                low, high, here = scale(how.low), scale(how.high), scale(params[name])  # type: ignore[union-attr]
                found.append(float((here - low) / (high - low)))
        return found

    def take(self, params: dict[str, Any]) -> int:
        """The nearest that is left."""
        left = sorted(self.left)
        distances = np.linalg.norm(self.places[left] - self._place(params), axis=1)
        nearest = left[int(distances.argmin())]
        self.left.remove(nearest)
        return nearest
