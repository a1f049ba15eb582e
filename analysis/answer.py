"""The answer to a study's question: numbers with error bars, and a sentence that claims no more than they do.

Only the confirm stage counts. Differences are taken seed by seed against the study's first arm.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from absld_search.core.metrics import tail_objective
from absld_search.core.results import Tables
from absld_search.search import stats
from analysis import evidence, standing
from analysis.caveats import caveats
from analysis.confirmed import SEARCHED, Headline, Seed, chosen, confirm_trainings, confirmed, headline_of
from analysis.doubts import doubts
from analysis.sentences import choices_of, measured_under, verdicts_of
from analysis.verdicts import Verdicts, verdicts

WORST, MEAN = "worst_class_{}_accuracy", "{}_accuracy"


def measures_of(kind: str) -> list[str]:
    """What a row shows: the mean and the worst class under the headline's attack, then the search's, then CW."""
    attacked = [form.format(of) for of in (kind, SEARCHED, "cw") for form in (MEAN, WORST)]
    return list(dict.fromkeys(["clean_accuracy", *attacked, f"{kind}_nsd", "minutes"]))


def compared(num_classes: int, kind: str) -> list[str]:
    """What arms are compared in, under the headline's attack: the tail of the classes, the worst class, the mean."""
    return [tail_objective(num_classes, kind), WORST.format(kind), MEAN.format(kind)]


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
    measures: dict[str, Spread]  # by names of `measures_of`; absent where not measured
    worst_classes: dict[str, int]  # name of the worst class under the headline's attack -> in how many seeds
    worst_class_images: int | None  # test images of that class; the fewest, where seeds disagree on it
    reason: str


@dataclass(frozen=True)
class Comparison:
    """An arm minus the first arm in one measure, paired by seed; holm_p corrects p for its family.

    `low` and `high` are for new seeds on these images, `low_both` and `high_both` for new seeds and new images.
    """

    arm: str
    against: str
    measure: str
    mean: float
    low: float
    high: float
    p: float
    holm_p: float
    n: int
    low_both: float = -math.inf
    high_both: float = math.inf

    @property
    def decided(self) -> bool:
        """Whether a difference may be claimed: the interval excludes 0 and the corrected p is below 0.05."""
        return (self.low > 0 or self.high < 0) and self.holm_p < stats.ALPHA

    @property
    def general(self) -> bool:
        """Whether it may be claimed beyond these test images: the interval over seeds and images excludes 0 too."""
        return self.decided and (self.low_both > 0 or self.high_both < 0)


@dataclass(frozen=True)
class Answer:
    """What a study found, in words and numbers. Accuracies and their differences are fractions."""

    study: str
    question: str
    workload: str
    rows: list[Row]
    comparisons: list[Comparison]
    verdicts: list[str]  # a sentence or two for each compared measure, and under which attack they hold
    caveats: list[str]
    worst: list[evidence.Worst] = field(default_factory=list)
    classes: list[evidence.ClassDifference] = field(default_factory=list)  # of the arms with a decided difference
    power: str = ""  # what would decide a difference of 1 point
    teachers: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> measures on val, sha256, images
    headline: Headline = Headline(SEARCHED, 0, 0)  # the attack of all these numbers
    constraints: list[str] = field(
        default_factory=list
    )  # on val, as "clean_accuracy >= 0.8": who breaks one isn't chosen
    notices: list[str] = field(default_factory=list)  # that the study runs, is empty, or has only failures

    @property
    def sentence(self) -> str:
        """The answer in plain words."""
        return " ".join(self.verdicts)


def answer(tables: Tables, comparisons: list[Comparison] | None = None, family: int | None = None) -> Answer:
    """The answer of a study; an arm without confirm results gets a row that says so.

    `comparisons`: those to tell of, with p corrected for `family` of them; by default each arm with the first.
    """
    facts, seeds, on_test = tables.facts, confirmed(tables), verdicts(tables)
    headline, arms = headline_of(tables), facts["arms"]
    rows = [_row(tables, arm, seeds[arm], headline.kind) for arm in arms]
    if comparisons is None:
        comparisons = _comparisons(tables, seeds, on_test, compared(len(facts["classes"]), headline.kind))
    family = len(arms) - 1 if family is None else family
    worst = {arm: _differences(WORST.format(headline.kind), seeds[arm], seeds[arms[0]]) for arm in arms[1:]}
    return Answer(
        study=facts["study"],
        question=facts["question"],
        workload=facts["workload"],
        rows=rows,
        comparisons=comparisons,
        verdicts=said(facts["workload"], rows, comparisons, headline),
        caveats=caveats(facts, rows, seeds, headline, family),
        worst=evidence.worst_rows(tables, seeds, on_test),
        classes=evidence.class_differences(tables, [arm for arm in arms if _decided(arm, comparisons)], on_test),
        power=evidence.power(arms[0], worst, on_test, family),
        teachers=dict(facts.get("teachers", {})),
        headline=headline,
        constraints=list(facts.get("constraints", [])),
        notices=[*standing.notices(tables), *doubts(tables, seeds)],
    )


def warnings(found: Answer) -> list[str]:
    """What must stand beside every number: that it proves an installation and no more, or that the study runs."""
    return [*smoke(found.workload), *found.notices]


def said(workload: str, rows: list[Row], comparisons: list[Comparison], headline: Headline) -> list[str]:
    """The answer in plain words, a sentence or two each."""
    measured = filter(None, [measured_under(headline)])
    return [*smoke(workload), *verdicts_of(rows, comparisons, headline.kind), *choices_of(rows, comparisons), *measured]


def smoke(workload: str) -> list[str]:
    """What is said of a run that only proves the installation; [] of all others."""
    if not workload.endswith("-smoke"):
        return []
    return ["SMOKE: this run proves the installation, its numbers mean nothing."]


def _row(tables: Tables, arm: str, seeds: Mapping[int, Seed], kind: str) -> Row:
    trial = chosen(tables).get(arm)
    complete = (pc.field("arm") == arm) & (pc.field("state") == "COMPLETE")
    attacked = [seed for seed in seeds.values() if not np.isnan(seed.attacked).all()]
    worst = [int(np.nanargmin(seed.attacked)) for seed in attacked]
    names = Counter(tables.facts["classes"][index] for index in worst)
    return Row(
        arm=arm,
        trial=trial["trial"] if trial else None,
        words=dict(tables.facts.get("arm_words", {}).get(arm, {})),
        params=json.loads(trial["params"]) if trial else {},
        seeds=len(seeds),
        searched=tables.trials.filter(complete).num_rows,
        measures={name: spread for name in measures_of(kind) if (spread := _spread(name, seeds)) is not None},
        worst_classes=dict(names.most_common()),
        worst_class_images=min((int(seed.n[i]) for seed, i in zip(attacked, worst, strict=True)), default=None),
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
        return _because(f"no trial was chosen{_infeasible(of_arm)}", of_arm.to_pylist())
    trainings = confirm_trainings(tables, arm)
    planned = max(tables.facts.get("confirm_seeds", 0), len(trainings))
    if measured == planned:
        return ""
    return _because(f"{planned - measured} of {planned} confirm trainings are missing", trainings)


def _infeasible(trials: pa.Table) -> str:
    count = trials["state"].to_pylist().count("INFEASIBLE")
    return f": {count} of {trials.num_rows} are infeasible" if count else ""


def _because(missing: str, rows: list[dict[str, Any]]) -> str:
    reasons = [row["reason"] for row in rows if row["state"] == "FAILED"]
    return f"{missing}; {len(reasons)} failed, the first: {reasons[0]}" if reasons else missing


def _decided(arm: str, comparisons: list[Comparison]) -> bool:
    return any(found.decided for found in comparisons if found.arm == arm)


def _comparisons(
    tables: Tables,
    seeds: Mapping[str, Mapping[int, Seed]],
    on_test: Mapping[str, Verdicts],
    measures: list[str],
) -> list[Comparison]:
    first, *others = tables.facts["arms"]
    both = _over_both(tables, on_test, measures)
    found = []
    for measure in measures:
        differences = {arm: _differences(measure, seeds[arm], seeds[first]) for arm in others}
        tested = {arm: stats.paired(values) for arm, values in differences.items() if values}
        # An arm that could not be tested still counts as a comparison that was planned.
        corrected = stats.holm([tested[arm].p if arm in tested else 1.0 for arm in others])
        for arm, holm_p in zip(others, corrected, strict=True):
            if arm in tested:
                mean, low, high, p, n = tested[arm]
                wide = both.get(arm, {}).get(measure)
                further = (wide.low, wide.high) if wide and math.isfinite(low) else ()  # never narrower than over seeds
                found.append(Comparison(arm, first, measure, mean, low, high, p, float(holm_p), n, *further))
    return found


def _over_both(
    tables: Tables, found: Mapping[str, Verdicts], measures: list[str]
) -> dict[str, dict[str, stats.Interval]]:
    """Arm -> measure -> interval of its difference to the first arm for new seeds and new images."""
    first, *others = tables.facts["arms"]
    if first not in found:
        return {}
    return {arm: evidence.over_both(found[arm], found[first], measures) for arm in others if arm in found}


def _differences(measure: str, arm: Mapping[int, Seed], first: Mapping[int, Seed]) -> list[float]:
    values = [
        arm[seed].measures.get(measure, np.nan) - first[seed].measures.get(measure, np.nan)
        for seed in sorted(set(arm) & set(first))
    ]
    return [value for value in values if np.isfinite(value)]
