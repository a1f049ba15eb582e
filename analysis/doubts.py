"""What cannot be right of a study's numbers, or says nothing: seen by looking at them, and said beside them."""

from collections.abc import Mapping

import pyarrow.compute as pc

from absld_search.core.results import Tables
from analysis.confirmed import Seed

FEWEST = 3  # trials with different settings: of two, one can be without effect by accident


def doubts(tables: Tables, seeds: Mapping[str, Mapping[int, Seed]]) -> list[str]:
    """One sentence each."""
    return [*_without_effect(tables), *_on_the_floor(tables.facts["arms"], seeds)]


def _without_effect(tables: Tables) -> list[str]:
    """Arms whose trials all have the same values to the bit, whatever was tried."""
    names, found = [f"objective/{name}" for name in tables.facts["objectives"]], []
    complete = tables.trials.filter(pc.field("state") == "COMPLETE")
    rows = complete.select(["arm", "params", *names]).to_pylist()
    for arm in tables.facts["arms"]:
        own = [row for row in rows if row["arm"] == arm]
        settings, values = {row["params"] for row in own}, {tuple(row[name] for name in names) for row in own}
        if len(settings) >= FEWEST and len(values) == 1:
            found.append(
                f"Arm {arm}: its trials, at {len(settings)} different settings, have the same values to the last "
                "digit. What is searched there does nothing, or every training fell to the same floor: look into it "
                "before you believe the arm."
            )
    return found


def _on_the_floor(arms: list[str], seeds: Mapping[str, Mapping[int, Seed]]) -> list[str]:
    """Where no arm's worst class is ever attacked in vain."""
    lowest = [seed.attacked.min() for arm in arms for seed in seeds.get(arm, {}).values() if seed.attacked.size]
    if len(arms) < 2 or not lowest or max(lowest) > 0:
        return []
    return [
        "The worst class of every confirm training is at 0: what was trained is too weak, or the attack too strong, "
        "for worst classes to tell these arms apart."
    ]
