"""The two tables of an answer as rows of short strings: the same cells for terminal, Markdown and HTML."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from absld_search.core.metrics import kind_of
from analysis.answer import MEAN, WORST, Answer, Comparison, Row, measures_of
from analysis.confirmed import SEARCHED, plain_name, short_name
from analysis.evidence import ClassDifference, Worst
from analysis.sentences import attack_label, in_per_cent, measured_under, plain

MISSING = "–"
TEACHER_COLUMNS = {
    "clean_accuracy": "clean",
    "robust_accuracy": "robust",
    "worst_class_robust_accuracy": "worst class",
    "robust_nsd": "NSD",
}
TEACHER_LEGEND = (
    "The teachers themselves, on val under APGD-CE (the students above: on test). A dash: not measured, because APGD "
    "of a large network needs a GPU. sha256: the first digits of the weights' hash."
)
COMPARISON_LEGEND = (
    "Arm minus first arm in points, paired by seed. Over seeds: the 95 % interval of new seeds on these test images, "
    "the exact sign-flip test turned around. Both: of new seeds and new images (bootstrap over images and variance "
    "over seeds). Holm p: the test's p, corrected for the comparisons it belongs to. Decided: Holm p < 0.05; 'here' "
    "where the interval over both does not exclude 0, so that the claim is about these images."
)
WORST_LEGEND = (
    "On test under {attack}, means over the confirm seeds, in %. Minimum: the lowest class, biased low by noise; "
    "fewest: images of the class that has the fewest. Debiased: without most of that bias, with its 95 % interval for "
    "new seeds and new images. "
    "Tail: mean of the lowest 20 % of the classes (of 50 and more classes, 10 %). "
    "Rho (WAT): what the minimum gains on the first arm less what the average loses, both relative. Optimism, in "
    "points of the first objective ({objective}), under the search's attack on either side: what the search saw on "
    "val, and what the confirm trainings reach on val, minus what these reach on test."
)
CLASSES_LEGEND = (
    "Under {attack}: classes in which a decided arm differs from the first: exact McNemar test, Holm's "
    "correction for the number of classes. Better, worse: images that the arm gets right with more seeds, and with "
    "fewer, than the first arm."
)


def legend(found: Answer, narrow: bool = False) -> str:
    """What the columns of the arms' table are, and under which attack, with n; `narrow` as in `rows`."""
    kind = found.headline.kind
    others = [of for of in (SEARCHED, "cw") if of != kind and MEAN.format(of) in _shown(found, narrow)]
    attacks = [f"{short_name(of)} = {plain_name(of)}{_role(of, kind)}" for of in (kind, *others)]
    beside = f"; worst {' and worst '.join(map(short_name, others))} likewise" if others else ""
    parts = [
        "On test: mean ± sd over the confirm seeds.",
        measured_under(found.headline),
        f"Accuracy in % of images: clean; {'; '.join(attacks)}.",
        f"Worst class: the lowest class accuracy under {attack_label(kind)}, n its number of test images{beside}.",
        f"NSD: standard deviation / mean of the class accuracies under {attack_label(kind)}, lower is fairer.",
        "Min: minutes of a training.",
        "(n = …): of so many seeds; the others have no such value, as a seed without a hit has no NSD."
        if _few(found)
        else "",
        "CW stands in the report." if narrow and _shown(found, narrow) != _shown(found, False) else "",
    ]
    return " ".join(filter(None, parts))


def _few(found: Answer) -> bool:
    return any(spread.n < row.seeds for row in found.rows for spread in row.measures.values())


def worst_legend(found: Answer) -> str:
    """What the columns of the table of worst classes are."""
    objective = plain(found.worst[0].objective) if found.worst else ""
    return WORST_LEGEND.format(attack=plain_name(found.headline.kind), objective=objective)


def classes_legend(found: Answer) -> str:
    """What the columns of the table of classes are."""
    return CLASSES_LEGEND.format(attack=plain_name(found.headline.kind))


def columns(kind: str) -> dict[str, str]:
    """Measure -> heading of the arms' table; the headline's attack first, accuracies in per cent."""
    heads = {measure: plain(measure) for measure in measures_of(kind)}
    for of in (SEARCHED, "cw", kind):
        heads |= {MEAN.format(of): short_name(of), WORST.format(of): f"worst {short_name(of)}"}
    fixed = {"clean_accuracy": "clean", WORST.format(kind): "worst class", f"{kind}_nsd": "NSD", "minutes": "min"}
    return heads | fixed


def _shown(found: Answer, narrow: bool) -> dict[str, str]:
    """Those columns that some arm fills, or all where none has any."""
    kind, measured = found.headline.kind, {measure for row in found.rows for measure in row.measures}
    crowded = narrow and kind not in (SEARCHED, "cw")
    heads = {measure: head for measure, head in columns(kind).items() if not (crowded and kind_of(measure) == "cw")}
    return {measure: head for measure, head in heads.items() if measure in measured or not measured}


def rows(found: Answer, narrow: bool = False) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells an arm. `narrow`: without CW, where the search's attack needs the room."""
    heads = _shown(found, narrow)
    names = ["arm", "trial", "seeds", *heads.values()]
    place = names.index("worst class") + 1
    names.insert(place, "n")
    return names, [_row(row, place, list(heads)) for row in found.rows]


def comparisons(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells a comparison with the first arm."""
    names = ["comparison", "measure", "difference", "over seeds", "both", "Holm p", "seeds", "decided"]
    return names, [_comparison(comparison) for comparison in found.comparisons]


def worst(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells an arm: its worst classes, and the optimism of val."""
    names = ["arm", "minimum", "fewest", "debiased", "95 % interval", "tail", "rho", "optimism of search", "of val"]
    return names, [_worst(row) for row in found.worst]


def classes(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells a class that tells two arms apart."""
    names = ["comparison", "class", "difference", "better", "worse", "Holm p"]
    return names, [_class(row) for row in found.classes]


def _worst(row: Worst) -> list[str]:
    values = [f"{100 * value:.1f}" for value in (row.minimum, row.debiased, row.tail)]
    interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}" if math.isfinite(row.low) else "unbounded"
    optimism = [MISSING if value is None else _points(value) for value in (row.search_optimism, row.val_optimism)]
    rho = MISSING if row.rho is None or not math.isfinite(row.rho) else f"{row.rho + 0:+.2f}".replace("-", "−")
    return [row.arm, values[0], str(row.images), values[1], interval, values[2], rho, *optimism]


def _class(row: ClassDifference) -> list[str]:
    counts = [_points(row.difference), str(row.better), str(row.worse)]
    return [f"{row.arm} − {row.against}", row.name, *counts, _p(row.holm_p)]


def teachers(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells a teacher."""
    names = ["teacher", "sha256", *TEACHER_COLUMNS.values(), "images"]
    return names, [_teacher(name, facts) for name, facts in found.teachers.items()]


def _teacher(name: str, facts: Mapping[str, Any]) -> list[str]:
    measured = [number(measure, facts.get(measure, math.nan)) for measure in TEACHER_COLUMNS]
    return [name, str(facts.get("sha256", ""))[:8], *measured, f"{facts['images']:g}" if "images" in facts else MISSING]


def choice(row: Row) -> str:
    """What an arm is, and what its search chose, in one line: with the trial's whole name, for `--pick id:`."""
    chose = f"chosen: {row.trial} with {parameters(row.params)}" if row.params else f"{row.trial}, nothing to tune"
    return f"{row.arm}: {'; '.join(filter(None, [parameters(row.words), chose]))}"


def parameters(params: Mapping[str, Any]) -> str:
    """Parameters in one line."""
    return ", ".join(f"{name} = {_short(value)}" for name, value in params.items())


def heading(measure: str) -> str:
    """A measure's name with its unit, for the head of a column."""
    return f"{plain(measure)}, %" if in_per_cent(measure) else plain(measure)


def number(measure: str, value: float) -> str:
    """A value of a measure, in per cent where the measure is a fraction."""
    if not math.isfinite(value):
        return MISSING
    if measure == "minutes":
        return f"{value:.2f}"
    return f"{100 * value:.1f}" if in_per_cent(measure) else f"{value:.3f}"


def _role(of: str, kind: str) -> str:
    return ", what the search saw on val" if of == SEARCHED != kind else ""


def _row(row: Row, place: int, measures: Sequence[str]) -> list[str]:
    cells = [row.arm, row.trial or MISSING, str(row.seeds), *(_spread(row, measure) for measure in measures)]
    cells.insert(place, MISSING if row.worst_class_images is None else str(row.worst_class_images))
    return cells


def _spread(row: Row, measure: str) -> str:
    spread = row.measures.get(measure)
    if spread is None:
        return MISSING
    few = f" (n = {spread.n})" if spread.n < row.seeds else ""
    return f"{number(measure, spread.mean)} ± {number(measure, spread.sd)}{few}"


def _comparison(found: Comparison) -> list[str]:
    decided = ("yes" if found.general else "here") if found.decided else "no"
    return [
        f"{found.arm} − {found.against}",
        plain(found.measure).removesuffix(" accuracy") if "worst" in found.measure else plain(found.measure),
        _points(found.mean),
        _interval(found.low, found.high),
        _interval(found.low_both, found.high_both),
        _p(found.holm_p),
        str(found.n),
        decided,
    ]


def _interval(low: float, high: float) -> str:
    return f"{_points(low)} to {_points(high)}" if math.isfinite(low) and math.isfinite(high) else "unbounded"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _points(fraction: float) -> str:
    # "+ 0" turns a rounded -0.0 into 0.0.
    return f"{round(100 * fraction, 1) + 0:+.1f}".replace("-", "−")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
