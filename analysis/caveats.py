"""What an answer rests on, and what it does not say."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from absld_search.core.metrics import kind_of
from absld_search.search import stats
from analysis.confirmed import Headline, Seed, plain_name
from analysis.sentences import limit, plain


def caveats(
    facts: Mapping[str, Any], rows: list[Any], seeds: Mapping[str, Mapping[int, Seed]], headline: Headline, family: int
) -> list[str]:
    """One sentence or two each; `rows` are the answer's, `family` the comparisons that p is corrected for."""
    summary = facts.get("workload_summary", "")
    setting = f"{facts['workload']} ({summary})" if summary else facts["workload"]
    return [
        f"The answer is about the workload {setting}, and about no other.",
        _fixed_caveat(facts),
        _selection_caveat(facts, rows),
        *_constraints_caveat(facts),
        *_oracle_caveat(facts),
        *_samplers_caveat(facts),
        *_code_caveat(facts),
        *_seeds_caveat(rows, family),
        *_attack_caveat(facts, headline),
        *_images_caveat(seeds, headline.kind),
        "Seeds vary a training's start, order and noise, not the test images. The interval over seeds and its p speak "
        "of new seeds on these images; two settings that are equal on average still differ on any one set of images, "
        "so only what the interval over seeds and images leaves no doubt of is claimed without that restriction.",
    ]


def _fixed_caveat(facts: Mapping[str, Any]) -> str:
    fixed = ", ".join(f"{name} = {value}" for name, value in facts.get("fixed", {}).items())
    return f"Fixed in every trial: {fixed or 'nothing'}. Other values may answer otherwise."


def _constraints_caveat(facts: Mapping[str, Any]) -> list[str]:
    limits = " and ".join(map(limit, facts.get("constraints", [])))
    return [f"Only trials with {limits} on val could be chosen."] if limits else []


def _oracle_caveat(facts: Mapping[str, Any]) -> list[str]:
    if "oracle:" not in str(facts.get("selection", "")):
        return []
    return ["An oracle rule chose epochs by looking at test: these numbers only serve to reproduce a paper's."]


def _knee(facts: Mapping[str, Any]) -> str:
    named = str(facts.get("selection", "")).startswith("knee point")
    said = " The knee is the front's point nearest to the ideal corner, each objective scaled to the front's extent."
    return said if named else ""


def _samplers_caveat(facts: Mapping[str, Any]) -> list[str]:
    samplers = facts.get("samplers", [])
    by = ", later by ".join(samplers)
    return [f"Configurations that were not given beforehand were proposed by the sampler {by}."] if samplers else []


def _code_caveat(facts: Mapping[str, Any]) -> list[str]:
    """Methods that were one code for some of the trainings and another for the rest."""
    changed = [name for name, digests in facts.get("code", {}).items() if len(set(digests)) > 1]
    if not changed:
        return []
    return [f"The code of {' and '.join(sorted(changed))} changed on the way; these trainings are of both."]


def _selection_caveat(facts: Mapping[str, Any], rows: list[Any]) -> str:
    searched = ", ".join(f"{row.arm} {row.searched}" for row in rows)
    return (
        "Each arm's trial was chosen on val, never on test, by one rule: "
        f"{facts.get('selection', 'not recorded')}.{_knee(facts)} Complete trials: {searched}; seeds per trial in the "
        f"search: {facts.get('search_seeds', 1)}. The confirm seeds repeat the chosen trial, not the search; "
        "another search may choose another trial."
    )


def _seeds_caveat(rows: list[Any], family: int) -> list[str]:
    if len(rows) < 2:
        return []
    n = min((row.seeds for row in rows if row.seeds), default=0)
    needed, lowest = stats.seeds_needed(family), stats.floor(n, family)
    enough = f"with {n}, p can reach {lowest:.2g}"
    short = f"with {n}, no p below {lowest:.2g} is possible, so nothing can be decided"
    return [
        f"To decide at Holm p < {stats.ALPHA} takes {needed} paired seeds where p is corrected for {family} "
        f"comparison(s), as here; {enough if n >= needed else short}. Each of the three measures is corrected apart."
    ]


def _attack_caveat(facts: Mapping[str, Any], headline: Headline) -> list[str]:
    said = []
    if headline.kind not in map(kind_of, facts["objectives"]) and headline.trainings:
        said = [
            f"The search went by {', '.join(map(plain, facts['objectives']))}, not by {plain_name(headline.kind)}: "
            "a choice that is best under the one attack need not be best under the other."
        ]
    if headline.held:
        said.append(
            f"{headline.passed_over} is stored for {headline.held} of {headline.trainings} confirm trainings and does "
            "not count; numbers of different attacks are not compared."
        )
    return said


def _images_caveat(seeds: Mapping[str, Mapping[int, Seed]], kind: str) -> list[str]:
    measured = [seed for of_arm in seeds.values() for seed in of_arm.values() if seed.n.any()]
    if not measured:
        return []
    counts = np.concatenate([seed.n[seed.n > 0] for seed in measured])
    n, num_classes = int(counts.min()), int((measured[0].n > 0).sum())
    mean = float(np.mean([seed.measures[f"{kind}_accuracy"] for seed in measured]))
    expected = stats.expected_worst(num_classes, n, mean)
    span = f"{n}" if n == counts.max() else f"{n} to {counts.max()}"
    return [
        f"Test has {span} images per class: one image moves a class by {100 / n:.1f} %. The minimum over classes "
        f"is biased low by so few: were all {num_classes} classes at the mean accuracy of {100 * mean:.1f} % under "
        f"{plain_name(kind)}, the worst would still read {100 * expected:.1f} % on average. Compare it only at equal "
        "numbers of images."
    ]
