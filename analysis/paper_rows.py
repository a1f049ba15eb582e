"""Rows of the paper's table: a study's arms from their stored verdicts, others' numbers from reported.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from absld_search.core import metrics
from absld_search.core.attack_names import KINDS
from absld_search.core.results import Tables
from absld_search.words import UsageError
from absld_search.workloads import workload
from analysis.verdicts import verdicts

DASH = "–"
PARTS = {"Avg.": "average", "Worst": "worst", "NSD": "nsd"}
Cell = tuple[str, ...]  # (mean,), (mean, sd), or () for what is not known


@dataclass(frozen=True)
class Row:
    """A method's row: attack -> part -> its cell."""

    method: str
    model: str
    source: str  # "ours", or a key of the reported sources
    seeds: int | None = None
    values: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    defined: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # attack -> seeds with an NSD, of so many

    def cell(self, attack: str, part: str) -> Cell:
        """What is known of it; () where nothing is."""
        return tuple(self.values.get(attack, {}).get(part, ()))


def own_rows(tables: Tables) -> list[Row]:
    """One row an arm, mean and sample standard deviation over the confirm seeds, from the verdict on every image."""
    model = _student(tables)
    by_attack = {attack: verdicts(tables, kind=kind) for attack, kind in KINDS.items()}
    rows = []
    for arm in tables.facts["arms"]:
        found = {attack: of[arm] for attack, of in by_attack.items() if arm in of}
        values = {attack: _summed(one.correct, one.labels, len(one.present)) for attack, one in found.items()}
        seeds = max((len(one.seeds) for one in found.values()), default=0)
        defined = {attack: (int(one.correct.any(axis=1).sum()), len(one.correct)) for attack, one in found.items()}
        rows.append(Row(arm, model, "ours", seeds, values, defined))
    return rows


@lru_cache
def _reported() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("reported.json").read_text(encoding="utf-8")))


def reported(dataset: str) -> list[Row]:
    """The rows of reported.json about a data set."""
    return [
        Row(_named(row), row["model"], row["source"], None,
            {a: {part: tuple(cell) for part, cell in parts.items()} for a, parts in row["values"].items()})
        for row in _reported()["rows"]
        if row["dataset"] == dataset
    ]  # fmt: skip


def told(sources: Iterable[str]) -> list[str]:
    """What has to be said of each of these sources."""
    known = _reported()["sources"]
    return [f"{name}: {known[name]['title']} ({known[name]['how']})." for name in sources]


def _summed(correct: Any, labels: Any, num_classes: int) -> dict[str, Cell]:
    """Verdicts (S, N) and labels (N,) as cells: mean and sample standard deviation over the seeds."""
    classes = [metrics.class_accuracies(row, labels, num_classes)[0] for row in correct]
    of_seeds = {
        "average": [100 * float(np.mean(row)) for row in correct],
        "worst": [100 * metrics.worst_class(row) for row in classes],
        "nsd": [metrics.nsd(row) for row in classes],
    }
    return {part: _spread(values, 3 if part == "nsd" else 1) for part, values in of_seeds.items()}


def _spread(values: Sequence[float], digits: int) -> Cell:
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return ()
    mean = f"{np.mean(values):.{digits}f}"
    return (mean, f"{np.std(values, ddof=1):.{digits}f}") if len(values) > 1 else (mean,)


def _named(row: Mapping[str, Any]) -> str:
    """A method with its checkpoint, and where it is from."""
    return f"{row['method']} ({', '.join(filter(None, [row.get('checkpoint'), row['source']]))})"


def dataset_of(tables: Tables) -> str:
    """The data set of a study's workload."""
    try:
        return workload(tables.facts["workload"]).dataset
    except UsageError:
        return ""  # a workload that this version does not know: nothing is reported for it


def _student(tables: Tables) -> str:
    try:
        return workload(tables.facts["workload"]).student
    except UsageError:
        return DASH
