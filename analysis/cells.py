"""The two tables of an answer as rows of short strings: the same cells for terminal, Markdown and HTML."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.answer import Answer, Comparison, Row, in_per_cent, plain

MISSING = "–"
COLUMNS = {  # measure -> heading; accuracies in per cent
    "clean_accuracy": "clean",
    "robust_accuracy": "robust",
    "worst_class_robust_accuracy": "worst class",
    "cw_accuracy": "CW",
    "worst_class_cw_accuracy": "worst CW",
    "robust_nsd": "NSD",
    "minutes": "min",
}
LEGEND = (
    "On test: mean ± sd over the confirm seeds. Clean, robust (APGD-CE) and CW: accuracy in % of images. "
    "Worst class: the lowest class accuracy under APGD-CE, n its number of test images; worst CW likewise. "
    "NSD: standard deviation / mean of the class accuracies under APGD-CE, lower is fairer. Min: minutes of a training."
)
TEACHER_COLUMNS = ("clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy", "robust_nsd")
TEACHER_LEGEND = (
    "The teachers themselves, on val (the students above: on test). A dash: not measured, because APGD of a "
    "large network needs a GPU. sha256: the first digits of the weights' hash."
)
COMPARISON_LEGEND = (
    "Arm minus first arm in points, paired by seed. Interval: 95 % BCa bootstrap over seeds. p: exact sign-flip test, "
    "two-sided; Holm p: corrected for the number of arms. Decided: the interval excludes 0 and Holm p < 0.05."
)


def rows(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells an arm."""
    names = ["arm", "trial", "seeds", *COLUMNS.values()]
    place = names.index("worst class") + 1
    names.insert(place, "n")
    return names, [_row(row, place) for row in found.rows]


def comparisons(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells a comparison with the first arm."""
    names = ["comparison", "measure", "difference", "95 % interval", "p", "Holm p", "seeds", "decided"]
    return names, [_comparison(comparison) for comparison in found.comparisons]


def teachers(found: Answer) -> tuple[list[str], list[list[str]]]:
    """Heading and one row of cells a teacher."""
    names = ["teacher", "sha256", *[COLUMNS[measure] for measure in TEACHER_COLUMNS], "images"]
    return names, [_teacher(name, facts) for name, facts in found.teachers.items()]


def _teacher(name: str, facts: Mapping[str, Any]) -> list[str]:
    measured = [number(measure, facts.get(measure, math.nan)) for measure in TEACHER_COLUMNS]
    return [name, str(facts.get("sha256", ""))[:8], *measured, f"{facts['images']:g}" if "images" in facts else MISSING]


def choice(row: Row) -> str:
    """What an arm is, and what its search chose, in one line."""
    chose = f"chosen: {parameters(row.params)}" if row.params else "nothing to tune"
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


def _row(row: Row, place: int) -> list[str]:
    cells = [row.arm, row.trial or MISSING, str(row.seeds), *(_spread(row, measure) for measure in COLUMNS)]
    cells.insert(place, MISSING if row.worst_class_images is None else str(row.worst_class_images))
    return cells


def _spread(row: Row, measure: str) -> str:
    spread = row.measures.get(measure)
    if spread is None:
        return MISSING
    return f"{number(measure, spread.mean)} ± {number(measure, spread.sd)}"


def _comparison(found: Comparison) -> list[str]:
    interval = f"{_points(found.low)} to {_points(found.high)}" if math.isfinite(found.low) else "unbounded"
    decided = "yes" if found.decided else "no"
    return [
        f"{found.arm} − {found.against}",
        plain(found.measure),
        _points(found.mean),
        interval,
        f"{found.p:.3f}",
        f"{found.holm_p:.3f}",
        str(found.n),
        decided,
    ]


def _points(fraction: float) -> str:
    # "+ 0" turns a rounded -0.0 into 0.0.
    return f"{round(100 * fraction, 1) + 0:+.1f}".replace("-", "−")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
