"""Whether short trainings rank settings as long ones do: for studies whose arms differ in `epochs` alone."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from absld_search.core.results import Tables
from absld_search.search.stats import spearman, spearman_interval
from analysis.sentences import plain

LEAST = 4  # settings that two arms have in common; fewer have hardly an order
LEGEND = (
    "Spearman's rank correlation, over settings that both arms trained, of an arm's values on val with those of the "
    "arm with the longest trainings; in brackets a 95 % bootstrap interval over settings, rough with so few. The noise "
    "of a seed is in both and lowers it: of two equally long trainings it would not be 1 either."
)


class Agreement(NamedTuple):
    """Of a short arm with the longest: settings in common, and for each objective (Spearman, low, high)."""

    arm: str
    epochs: int
    settings: int
    ranks: dict[str, tuple[float, float, float]]


def lengths(facts: Mapping[str, Any]) -> dict[str, int]:
    """Arm -> epochs, ascending, where that is all that tells the arms apart; {} elsewhere."""
    words = facts.get("arm_words", {})
    if len(words) < 2 or any(set(of_arm) != {"epochs"} for of_arm in words.values()):
        return {}
    return dict(sorted(((arm, int(of_arm["epochs"])) for arm, of_arm in words.items()), key=lambda pair: pair[1]))


def agreements(tables: Tables) -> list[Agreement]:
    """A row for each arm but the longest that shares enough settings with it."""
    *short, longest = lengths(tables.facts).items() or [("", 0)]
    whole = _values(tables, longest[0])
    found = []
    for arm, epochs in short:
        mine = _values(tables, arm)
        common = [setting for setting in mine if setting in whole]
        if len(common) >= LEAST:
            pairs = [np.array([of[setting] for setting in common], dtype=float).T for of in (mine, whole)]
            ranks = [(spearman(a, b), *spearman_interval(a, b)) for a, b in zip(*pairs, strict=True)]
            found.append(Agreement(arm, epochs, len(common), dict(zip(tables.facts["objectives"], ranks, strict=True))))
    return found


def cells(tables: Tables) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells an arm."""
    rows = []
    for row in agreements(tables):
        ranks = [f"{rank:.2f} [{low:.2f}, {high:.2f}]" for rank, low, high in row.ranks.values()]
        rows.append([row.arm, str(row.epochs), str(row.settings), *ranks])
    return ["arm", "epochs", "settings", *(plain(name) for name in tables.facts["objectives"])], rows


def _values(tables: Tables, arm: str) -> dict[str, list[float]]:
    """Setting -> objectives of an arm's complete trials; of equal settings the first."""
    found: dict[str, list[float]] = {}
    for row in tables.trials.to_pylist():
        if row["arm"] == arm and row["state"] == "COMPLETE":
            setting = json.dumps(json.loads(row["params"]), sort_keys=True)
            found.setdefault(setting, [row[f"objective/{name}"] for name in tables.facts["objectives"]])
    return found
