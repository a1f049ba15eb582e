"""What the confirm stage measured, recomputed from the stored outcome of every test image.

The confirm stage trains each arm's chosen trial again, with fresh seeds that are the same in all arms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absld_search.core import metrics
from absld_search.core.attack_names import ATTACKS, BY_WORD, KINDS, SEARCH_ATTACKS, strongest
from absld_search.core.results import Tables
from analysis.loading import seconds_of

T = TypeVar("T")
SEARCHED = KINDS[SEARCH_ATTACKS[-1]]  # the word of the search's own attack, APGD-CE


def _remembered(compute: Callable[[Tables], T]) -> Callable[[Tables], T]:
    """Computed once a study, and forgotten with it: a report asks a dozen times. Nobody may change the result."""
    known: WeakKeyDictionary[Tables, T] = WeakKeyDictionary()

    @wraps(compute)
    def found(tables: Tables) -> T:
        if tables not in known:
            known[tables] = compute(tables)
        return known[tables]

    return found


class Seed(NamedTuple):
    """One confirm training on test: metrics by name; under the headline's attack each class's accuracy and n, (C,)."""

    measures: dict[str, float]
    attacked: NDArray[np.float64]
    n: NDArray[np.int64]


@dataclass(frozen=True)
class Headline:
    """The attack whose numbers an answer leads with, and on how much it rests."""

    kind: str  # its word in the names of metrics
    trainings: int  # confirm trainings that count, in all arms shown
    images: int  # test images of each; the fewest, where they differ
    passed_over: str = ""  # a stronger attack, stored for some of these trainings only; its name in a sentence
    held: int = 0  # by how many


def chosen(tables: Tables) -> dict[str, dict[str, Any]]:
    """Arm -> its chosen trial's row; arms without one are absent."""
    rows = tables.trials.filter(pc.field("chosen")).sort_by("number").to_pylist()
    return {row["arm"]: row for row in reversed(rows)}


def confirm_trainings(tables: Tables, arm: str) -> list[dict[str, Any]]:
    """Rows of the confirm trainings of an arm's choice, by seed."""
    trial = chosen(tables).get(arm)
    if trial is None:
        return []
    wanted = (pc.field("config") == trial["config"]) & (pc.field("stage") == "confirm")
    return tables.trainings.filter(wanted).sort_by("seed").to_pylist()


@_remembered
def counted(tables: Tables) -> dict[str, dict[int, dict[str, Any]]]:
    """Arm -> seed -> row of a confirm training that counts: complete, asked for, measured on test."""
    # A study that was asked for more seeds before may hold some arms' and not the others'.
    indices = tables.facts.get("confirm_seed_indices")
    measured = set(pc.unique(_on_test(tables, "training")["training"]).to_pylist())

    def counts(row: dict[str, Any]) -> bool:
        asked = indices is None or row["seed"] in indices
        return asked and row["state"] == "COMPLETE" and row["training"] in measured

    return {arm: {row["seed"]: row for row in confirm_trainings(tables, arm) if counts(row)} for arm in _arms(tables)}


def headline(tables: Tables) -> str:
    """The word of the strongest attack that is stored on test for every confirm training that counts.

    APGD-CE's, the search's attack, where they share none.
    """
    return headline_of(tables).kind


@_remembered
def headline_of(tables: Tables) -> Headline:
    """The same, with what it rests on."""
    stored = _stored(tables)
    held = [set(attacks) for attacks in stored.values()]
    common = strongest(set.intersection(*held) if held else ())
    attack = SEARCH_ATTACKS[-1] if common == "clean" else common
    images = [stored[key][attack] for key in stored if attack in stored[key]]
    found = Headline(KINDS[attack], len(images), min(images, default=0))
    best = strongest(set().union(*held))
    if best in (attack, "clean"):
        return found
    return replace(found, passed_over=ATTACKS[best].plain, held=sum(best in attacks for attacks in held))


def _stored(tables: Tables) -> dict[str, dict[str, int]]:
    """Key of each confirm training that counts -> attack -> images on test; an attack on fewer of them is left out."""
    keys = [row["training"] for of_arm in counted(tables).values() for row in of_arm.values()]
    rows = _on_test(tables, "training", "attack").filter(pc.field("training").isin(pa.array(keys, pa.string())))
    found: dict[str, dict[str, int]] = {}
    counts = rows.group_by(["training", "attack"]).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        if row["attack"] in KINDS:
            found.setdefault(row["training"], {})[row["attack"]] = row["count_all"]
    return {
        key: {attack: n for attack, n in attacks.items() if n == max(attacks.values())}
        for key, attacks in found.items()
    }


@_remembered
def confirmed(tables: Tables) -> dict[str, dict[int, Seed]]:
    """Arm -> seed -> what its confirm training reached on test; every arm of the study is a key."""
    num_classes, kind = len(tables.facts["classes"]), headline(tables)
    trainings, images = counted(tables), by_training(_on_test(tables, "training", "attack", "label", "correct"))
    return {
        arm: {seed: _seed(images[row["training"]], num_classes, seconds_of(row), kind) for seed, row in of_arm.items()}
        for arm, of_arm in trainings.items()
    }


def by_training(table: pa.Table) -> dict[str, pa.Table]:
    """Training -> its rows, in their order. One sort, for a filter a training costs minutes in a large study."""
    return split(table, "training")


def split(table: pa.Table, column: str) -> dict[str, pa.Table]:
    """Each value of a column of text -> its rows, in their order."""
    keys = table[column].combine_chunks().dictionary_encode()
    codes = keys.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    rows = table if np.array_equal(order, np.arange(len(order))) else table.take(pa.array(order))
    names, counts = keys.dictionary.to_pylist(), np.bincount(codes, minlength=len(keys.dictionary))
    starts = np.cumsum(counts) - counts
    return {name: rows.slice(int(a), int(n)) for name, a, n in zip(names, starts, counts, strict=True)}


def plain_name(kind: str) -> str:
    """An attack's name in a sentence, by its word."""
    return BY_WORD[kind].plain


def short_name(kind: str) -> str:
    """An attack's name in a table's head, by its word."""
    return BY_WORD[kind].short


def _on_test(tables: Tables, *columns: str) -> pa.Table:
    """These columns of the images of test; to filter the others too would cost a large study seconds."""
    return tables.images.select(["split", *columns]).filter(pc.field("split") == "test")


def _arms(tables: Tables) -> list[str]:
    return list(tables.facts["arms"])


def _seed(images: pa.Table, num_classes: int, seconds: float | None, headline: str) -> Seed:
    measures: dict[str, float] = {} if seconds is None else {"minutes": seconds / 60}
    attacked, n = np.full(num_classes, np.nan), np.zeros(num_classes, dtype=np.int64)
    of = split(images, "attack")
    for attack, kind in KINDS.items():
        if attack not in of:
            continue
        correct, labels = (of[attack][name].to_numpy() for name in ("correct", "label"))
        measures |= metrics.summary(kind, correct, labels, num_classes)
        if kind == headline:
            attacked, n = metrics.class_accuracies(correct, labels, num_classes)
    return Seed(measures, attacked, n)
