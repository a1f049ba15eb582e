"""A study's tables for a report: of the long ones only what a report shows, however many trials the search had."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from absld_search.core import results
from absld_search.core.results import Tables

WORST = "worst_class_robust_accuracy"
FOUND = 0.01  # seconds an epoch: no training is over so soon
SURE = 300  # trainings, at most, whose images are read for it
JUDGED = ("search", "race")  # the stages whose values a trial's objectives are means of


def load(study_folder: Path | str) -> Tables:
    """Tables of a study: epochs and images of the confirm stage, and images of a search with several seeds; classes
    also of configurations with several seeds, and of all of the search where their worst class is no objective and
    stands nowhere else.

    Raises: FileNotFoundError where the folder is no study, or has no results yet.
    """
    facts = results.read_facts(study_folder)
    trials, trainings = (results.read(study_folder, name) for name in ("trials", "trainings"))
    confirm = _keys(trainings.filter(pc.field("stage") == "confirm"))
    judged = _keys(repeated_trainings(trainings) if WORST in facts["objectives"] else judged_trainings(trainings))
    epochs = results.read(study_folder, "epochs", confirm)
    images = results.read(study_folder, "images", confirm | _repeated(trainings))
    return Tables(facts, trials, trainings, epochs, results.read(study_folder, "classes", confirm | judged), images)


def _repeated(trainings: pa.Table) -> set[str]:
    """The judged trainings, where some trial has several: their images then say how sure a front is. Not thousands."""
    judged = judged_trainings(trainings)
    return _keys(judged) if judged.num_rows <= SURE and repeated_trainings(trainings).num_rows else set()


def seconds_of(training: Mapping[str, Any]) -> float | None:
    """What a training took; None where nobody knows.

    Tables of an older program hold of one that was taken over from another study how long it took to find it there.
    """
    found: float | None = training["seconds"]
    quick = found is not None and training["state"] == "COMPLETE" and found < FOUND * training["epochs"]
    return None if quick else found


def words_of(facts: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """What every training of an arm has: what all arms share, and its own words."""
    return {**facts.get("fixed", {}), **facts.get("arm_words", {}).get(arm, {})}


def judged_trainings(trainings: pa.Table) -> pa.Table:
    """Rows of the complete search and race trainings."""
    return trainings.filter(pc.field("stage").isin(JUDGED) & (pc.field("state") == "COMPLETE"))


def repeated_trainings(trainings: pa.Table) -> pa.Table:
    """Rows of the complete search and race trainings of configurations that have more than one."""
    judged = judged_trainings(trainings)
    counts = judged.group_by("config").aggregate([("training", "count")])
    several = counts.filter(pc.field("training_count") > 1)["config"]
    return judged.filter(pc.field("config").isin(several.combine_chunks()))


def _keys(trainings: pa.Table) -> set[str]:
    found: Iterable[str] = trainings["training"].to_pylist()
    return set(found)
