"""The numbers of a report as CSV, unrounded; every row names its workload, and every row of one value its unit."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from absld_search.core.results import Tables
from analysis.answer import Answer
from analysis.confirmed import confirmed
from analysis.spending import costs


def sheets(tables: Tables, found: Answer) -> dict[str, str]:
    """Name of a file, without its ending -> its text."""
    return {
        "arms": _csv([*ARM, *OF], ([*row, unit(row[2]), found.workload] for row in _arms(found))),
        "differences": _csv([*DIFFERENCE, *OF], _differences(found)),
        "classes": _csv([*CLASS, *OF], ([*row, unit("accuracy"), found.workload] for row in _classes(tables, found))),
        "costs": _csv([*COST, "workload"], ([*row, found.workload] for row in costs(tables))),
        "trials": _trials(tables),
    }


ARM = ("arm", "trial", "measure", "mean", "sd", "seeds")
CLASS = ("arm", "class", "attack", "accuracy", "sd", "seeds", "images")
COST = ("arm", "trials", "trainings", "epochs", "search_hours", "confirm_hours")
OF = ("unit", "workload")  # the last columns
DIFFERENCE = (
    "arm", "against", "measure", "mean", "low", "high", "low_both", "high_both", "p", "holm_p", "n", "decided",
    "general",
)  # fmt: skip


def unit(measure: str) -> str:
    """What a value of a measure counts."""
    return "minutes" if measure == "minutes" else "fraction of images" if "nsd" not in measure else "sd / mean"


def _differences(found: Answer) -> Iterable[Sequence[Any]]:
    for one in found.comparisons:
        yield [*(getattr(one, name) for name in DIFFERENCE), unit(one.measure), found.workload]


def _arms(found: Answer) -> Iterable[Sequence[Any]]:
    for row in found.rows:
        for measure, spread in row.measures.items():
            yield row.arm, row.trial, measure, *spread_of(spread.mean, spread.sd), spread.n


def spread_of(mean: float, sd: float) -> tuple[float, float | str]:
    """Mean and standard deviation; the latter empty for a single seed."""
    return mean, "" if np.isnan(sd) else sd


def _classes(tables: Tables, found: Answer) -> Iterable[Sequence[Any]]:
    for arm, seeds in confirmed(tables).items():
        measured = [seed for seed in seeds.values() if seed.n.any()]
        if not measured:
            continue
        values, n = np.stack([seed.attacked for seed in measured]), measured[0].n
        for index, name in enumerate(tables.facts["classes"]):
            sd = float(values[:, index].std(ddof=1)) if len(values) > 1 else float("nan")
            if n[index]:
                mean = float(values[:, index].mean())
                yield arm, name, found.headline.kind, *spread_of(mean, sd), len(values), int(n[index])


def _trials(tables: Tables) -> str:
    rows = tables.trials.to_pylist()
    params = [json.loads(row.pop("params")) for row in rows]
    names = list(dict.fromkeys(name for found in params for name in found))
    columns, workload = [name for name in tables.trials.column_names if name != "params"], tables.facts["workload"]
    cells = ([*row.values(), *map(own.get, names), workload] for row, own in zip(rows, params, strict=True))
    return _csv([*columns, *(f"param/{name}" for name in names), "workload"], cells)


def _csv(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return stream.getvalue()


def _safe(cell: Any) -> Any:
    """Empty where nothing is known; a spreadsheet would carry out a word that looks like a formula."""
    if isinstance(cell, float) and np.isnan(cell):
        return ""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
