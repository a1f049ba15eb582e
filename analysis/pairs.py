"""Any two arms of a study against each other, paired by confirm seed, corrected for the pairs one could have picked."""

from __future__ import annotations

import itertools
import math

import numpy as np

from absld_search.core.results import Tables
from absld_search.search import stats
from analysis import evidence
from analysis.answer import Comparison, compared
from analysis.confirmed import Seed, confirmed, headline
from analysis.verdicts import verdicts

Seeds = dict[str, dict[int, Seed]]


def compare(tables: Tables, first: str, second: str, kind: str = "") -> list[Comparison]:
    """`second` minus `first` in each compared measure, as fractions; [] where they have no confirm seed in common.

    `kind`: the attack's word in the names of metrics; by default the one of the answer about all arms.
    """
    kind = kind or headline(tables)
    seeds, measures = confirmed(tables), compared(len(tables.facts["classes"]), kind)
    pairs = family(tables.facts["arms"], first, second)
    both = _over_both(tables, first, second, measures, kind)
    rows = [_compared(seeds, measure, first, second, pairs, both.get(measure)) for measure in measures]
    return [row for row in rows if row is not None]


def family(arms: list[str], first: str, second: str) -> list[tuple[str, str]]:
    """The pairs that p is corrected for: those with the study's first arm were planned, any other is one of all."""
    if arms[0] in (first, second):
        return [(arms[0], arm) for arm in arms[1:]]
    return list(itertools.combinations(arms, 2))


def _compared(
    seeds: Seeds, measure: str, first: str, second: str, pairs: list[tuple[str, str]], wide: stats.Interval | None
) -> Comparison | None:
    differences = _differences(seeds, measure, first, second)
    if not differences:
        return None
    mean, low, high, p, n = stats.paired(differences)
    # A pair that could not be tested still counts as one that could have been picked.
    tested = {frozenset(pair): _p(seeds, measure, *pair) for pair in pairs}
    corrected = dict(zip(tested, stats.holm(list(tested.values())), strict=True))
    further = (wide.low, wide.high) if wide and math.isfinite(low) else ()  # never narrower than over seeds
    return Comparison(
        second, first, measure, mean, low, high, p, float(corrected[frozenset((first, second))]), n, *further
    )


def _p(seeds: Seeds, measure: str, first: str, second: str) -> float:
    differences = _differences(seeds, measure, first, second)
    return stats.paired(differences).p if differences else 1.0


def _differences(seeds: Seeds, measure: str, first: str, second: str) -> list[float]:
    common = sorted(set(seeds[first]) & set(seeds[second]))
    pairs = [(seeds[first][seed].measures, seeds[second][seed].measures) for seed in common]
    values = [other.get(measure, np.nan) - one.get(measure, np.nan) for one, other in pairs]
    return [value for value in values if math.isfinite(value)]


def _over_both(tables: Tables, first: str, second: str, measures: list[str], kind: str) -> dict[str, stats.Interval]:
    found = verdicts(tables, kind)
    if first not in found or second not in found:
        return {}
    return evidence.over_both(found[second], found[first], measures)
