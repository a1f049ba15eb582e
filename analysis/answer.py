"""The answer to a study's question: numbers with error bars, and a sentence that claims no more than they do.

Only the confirm stage counts. Differences are taken seed by seed against the study's first arm.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from absld_search.core.results import Tables
from absld_search.search import stats
from analysis.confirmed import Seed, chosen, confirm_trainings, confirmed

MEASURES = (
    "clean_accuracy",
    "robust_accuracy",
    "worst_class_robust_accuracy",
    "cw_accuracy",
    "worst_class_cw_accuracy",
    "robust_nsd",
    "minutes",
)
COMPARED = ("worst_class_robust_accuracy", "robust_accuracy")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over n seeds; the latter nan for a single seed."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Row:
    """One arm: its choice and what the confirm stage measured. `reason` says what is missing, and why."""

    arm: str
    trial: str | None
    words: dict[str, Any]  # what makes it this arm
    params: dict[str, Any]  # what its search chose
    seeds: int
    searched: int  # complete trials of the arm's search
    measures: dict[str, Spread]  # by names of MEASURES; absent where not measured
    worst_classes: dict[str, int]  # name of the worst class under APGD-CE -> in how many seeds
    worst_class_images: int | None  # test images of that class; the fewest, where seeds disagree on it
    reason: str


@dataclass(frozen=True)
class Comparison:
    """An arm minus the first arm in one measure, paired by seed; holm_p corrects p for the number of arms."""

    arm: str
    against: str
    measure: str
    mean: float
    low: float
    high: float
    p: float
    holm_p: float
    n: int

    @property
    def decided(self) -> bool:
        """Whether a difference may be claimed: the interval excludes 0 and the corrected p is below 0.05."""
        return (self.low > 0 or self.high < 0) and self.holm_p < stats.ALPHA


@dataclass(frozen=True)
class Answer:
    """What a study found, in words and numbers. Accuracies and their differences are fractions."""

    study: str
    question: str
    workload: str
    rows: list[Row]
    comparisons: list[Comparison]
    verdicts: list[str]  # a sentence or two for each compared measure
    caveats: list[str]
    teachers: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> measures on val, sha256, images

    @property
    def sentence(self) -> str:
        """The answer in plain words."""
        return " ".join(self.verdicts)


def answer(tables: Tables) -> Answer:
    """The answer of a study; an arm without confirm results gets a row that says so."""
    facts, seeds = tables.facts, confirmed(tables)
    rows = [_row(tables, arm, seeds[arm]) for arm in facts["arms"]]
    comparisons = _comparisons(facts["arms"], seeds)
    return Answer(
        study=facts["study"],
        question=facts["question"],
        workload=facts["workload"],
        rows=rows,
        comparisons=comparisons,
        verdicts=[*_smoke(facts["workload"]), *_verdicts(rows, comparisons)],
        caveats=_caveats(facts, rows, seeds),
        teachers=dict(facts.get("teachers", {})),
    )


def _smoke(workload: str) -> list[str]:
    if not workload.endswith("-smoke"):
        return []
    return ["SMOKE: this run proves the installation, its numbers mean nothing."]


def _row(tables: Tables, arm: str, seeds: Mapping[int, Seed]) -> Row:
    trial = chosen(tables).get(arm)
    complete = (pc.field("arm") == arm) & (pc.field("state") == "COMPLETE")
    robust = [seed for seed in seeds.values() if not np.isnan(seed.robust).all()]
    worst = [int(np.nanargmin(seed.robust)) for seed in robust]
    names = Counter(tables.facts["classes"][index] for index in worst)
    return Row(
        arm=arm,
        trial=trial["trial"] if trial else None,
        words=dict(tables.facts.get("arm_words", {}).get(arm, {})),
        params=json.loads(trial["params"]) if trial else {},
        seeds=len(seeds),
        searched=tables.trials.filter(complete).num_rows,
        measures={name: spread for name in MEASURES if (spread := _spread(name, seeds)) is not None},
        worst_classes=dict(names.most_common()),
        worst_class_images=min((int(seed.n[i]) for seed, i in zip(robust, worst, strict=True)), default=None),
        reason=_reason(tables, arm, len(seeds)),
    )


def _spread(measure: str, seeds: Mapping[int, Seed]) -> Spread | None:
    measured = [seed.measures.get(measure, np.nan) for seed in seeds.values()]
    values = [value for value in measured if np.isfinite(value)]
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), sd, len(values))


def _reason(tables: Tables, arm: str, measured: int) -> str:
    if arm not in chosen(tables):
        of_arm = tables.trials.filter(pc.field("arm") == arm)
        return _because("no trial was chosen", of_arm.to_pylist())
    trainings = confirm_trainings(tables, arm)
    planned = max(tables.facts.get("confirm_seeds", 0), len(trainings))
    if measured == planned:
        return ""
    return _because(f"{planned - measured} of {planned} confirm trainings are missing", trainings)


def _because(missing: str, rows: list[dict[str, Any]]) -> str:
    reasons = [row["reason"] for row in rows if row["state"] == "FAILED"]
    return f"{missing}; {len(reasons)} failed, the first: {reasons[0]}" if reasons else missing


def _comparisons(arms: list[str], seeds: Mapping[str, Mapping[int, Seed]]) -> list[Comparison]:
    found = []
    for measure in COMPARED:
        differences = {arm: _differences(measure, seeds[arm], seeds[arms[0]]) for arm in arms[1:]}
        tested = {arm: stats.paired(values) for arm, values in differences.items() if values}
        # An arm that could not be tested still counts as a comparison that was planned.
        corrected = stats.holm([tested[arm].p if arm in tested else 1.0 for arm in arms[1:]])
        for arm, holm_p in zip(arms[1:], corrected, strict=True):
            if arm in tested:
                mean, low, high, p, n = tested[arm]
                found.append(Comparison(arm, arms[0], measure, mean, low, high, p, float(holm_p), n))
    return found


def _differences(measure: str, arm: Mapping[int, Seed], first: Mapping[int, Seed]) -> list[float]:
    values = [
        arm[seed].measures.get(measure, np.nan) - first[seed].measures.get(measure, np.nan)
        for seed in sorted(set(arm) & set(first))
    ]
    return [value for value in values if np.isfinite(value)]


def plain(measure: str) -> str:
    """A measure's name in plain words."""
    return measure.replace("worst_class", "worst-class").replace("_", " ").replace("cw", "CW").replace("nsd", "NSD")


def in_per_cent(measure: str) -> bool:
    """Whether a measure is a fraction that is shown in per cent."""
    return measure.endswith(("_accuracy", "_cvar"))


def _verdicts(rows: list[Row], comparisons: list[Comparison]) -> list[str]:
    if len(rows) == 1:
        return [_only_arm(rows[0])]
    said = [_verdict([found for found in comparisons if found.measure == measure]) for measure in COMPARED]
    compared = {found.arm for found in comparisons}
    absent = [row.arm for row in rows[1:] if row.arm not in compared]
    if absent:
        reason = f"no seed was confirmed both there and in {rows[0].arm}"
        said.append(f"The data do not decide about {_listed(absent)}: {reason}.")
    return [sentence for sentence in said if sentence]


def _only_arm(row: Row) -> str:
    spread = row.measures.get("worst_class_robust_accuracy")
    if spread is None:
        return f"The data do not decide: the only arm, {row.arm}, has no confirmed result."
    return (
        f"The only arm, {row.arm}, reaches a worst-class robust accuracy of {100 * spread.mean:.1f} % on test "
        f"(mean of {spread.n} seeds); nothing is compared."
    )


def _verdict(comparisons: list[Comparison]) -> str:
    """What the data decide, and what they do not, in one measure."""
    if not comparisons:
        return ""
    said = [_claim(found) for found in comparisons if found.decided]
    undecided = [f"between {found.against} and {found.arm}" for found in comparisons if not found.decided]
    if undecided:
        said.append(f"The data do not decide {', nor '.join(undecided)}.")
    name = plain(comparisons[0].measure)
    return f"{name[0].upper()}{name[1:]}: {' '.join(said)}"


def _claim(found: Comparison) -> str:
    least, most = sorted((100 * abs(found.low), 100 * abs(found.high)))
    return (
        f"{found.arm} is {'higher' if found.mean > 0 else 'lower'} than {found.against} by "
        f"{100 * abs(found.mean):.1f} points (95 % interval {least:.1f} to {most:.1f}, Holm p {found.holm_p:.2g}, "
        f"{found.n} paired seeds)."
    )


def _caveats(facts: Mapping[str, Any], rows: list[Row], seeds: Mapping[str, Mapping[int, Seed]]) -> list[str]:
    summary = facts.get("workload_summary", "")
    setting = f"{facts['workload']} ({summary})" if summary else facts["workload"]
    return [
        f"The answer is about the workload {setting}, and about no other.",
        _fixed_caveat(facts),
        _selection_caveat(facts, rows),
        *_seeds_caveat(rows),
        *_images_caveat(seeds),
        "Seeds vary a training's start, order and noise, not the test images: "
        "an interval speaks of new seeds, not of new images.",
    ]


def _fixed_caveat(facts: Mapping[str, Any]) -> str:
    fixed = ", ".join(f"{name} = {value}" for name, value in facts.get("fixed", {}).items())
    return f"Fixed in every trial: {fixed or 'nothing'}. Other values may answer otherwise."


def _selection_caveat(facts: Mapping[str, Any], rows: list[Row]) -> str:
    searched = ", ".join(f"{row.arm} {row.searched}" for row in rows)
    return (
        "Each arm's trial was chosen on val, never on test, by one rule: "
        f"{facts.get('selection', 'not recorded')}. Complete trials: {searched}; seeds per trial in the "
        f"search: {facts.get('search_seeds', 1)}. The confirm seeds repeat the chosen trial, not the search; "
        "another search may choose another trial."
    )


def _seeds_caveat(rows: list[Row]) -> list[str]:
    if len(rows) < 2:
        return []
    comparisons, n = len(rows) - 1, min((row.seeds for row in rows if row.seeds), default=0)
    needed, lowest = stats.seeds_needed(comparisons), stats.floor(n, comparisons)
    enough = f"with {n}, p can reach {lowest:.2g}"
    short = f"with {n}, no p below {lowest:.2g} is possible, so nothing can be decided"
    return [
        f"To decide at Holm p < {stats.ALPHA}, {comparisons} comparison(s) with the first arm need {needed} paired "
        f"seeds; {enough if n >= needed else short}. The correction is for the number of arms, "
        "in each of the two measures apart."
    ]


def _images_caveat(seeds: Mapping[str, Mapping[int, Seed]]) -> list[str]:
    measured = [seed for of_arm in seeds.values() for seed in of_arm.values() if seed.n.any()]
    if not measured:
        return []
    counts = np.concatenate([seed.n[seed.n > 0] for seed in measured])
    n, num_classes = int(counts.min()), int((measured[0].n > 0).sum())
    mean = float(np.mean([seed.measures["robust_accuracy"] for seed in measured]))
    expected = stats.expected_worst(num_classes, n, mean)
    span = f"{n}" if n == counts.max() else f"{n} to {counts.max()}"
    return [
        f"Test has {span} images per class: one image moves a class by {100 / n:.1f} %. The minimum over classes "
        f"is biased low by so few: were all {num_classes} classes at the mean robust accuracy of {100 * mean:.1f} %, "
        f"the worst would still read {100 * expected:.1f} % on average. Compare it only at equal numbers of images."
    ]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
