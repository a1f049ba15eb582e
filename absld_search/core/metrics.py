"""Fairness metrics: from per-image outcomes to class accuracies (C,), and from these to a few numbers.

Accuracies are fractions in [0, 1]. A class without an image has accuracy nan; it is left out, never counted
as 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from absld_search.core import attack_names

Array = NDArray[np.float64]

KINDS = tuple(attack_names.KINDS.values())
"""The words of the attacks that a study stores, in `attack_names`; robust is the attack of the search, APGD-CE."""

_FORMS = {
    "{}_accuracy": "max",
    "worst_class_{}_accuracy": "max",
    "worst_tenth_{}_accuracy": "max",
    "{}_cvar": "max",
    "{}_nsd": "min",
}
NAMES: dict[str, str] = {form.format(kind): direction for kind in KINDS for form, direction in _FORMS.items()}
"""Every metric's name -> its better direction, "max" or "min"."""


def class_accuracies(correct: Any, labels: Any, num_classes: int) -> tuple[Array, NDArray[np.int64]]:
    """Accuracy and number of images per class, (C,) each, from outcomes (N,) and labels (N,) in [0, C)."""
    correct, labels = np.asarray(correct, dtype=bool), np.asarray(labels, dtype=np.int64)
    if correct.shape != labels.shape or correct.ndim != 1:
        raise ValueError(f"correct {correct.shape} and labels {labels.shape} must both be (N,)")
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but there are {num_classes} classes")
    n = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[correct], minlength=num_classes)
    return np.divide(hits, n, out=np.full(num_classes, np.nan), where=n > 0), n


def lowest_mean(class_accuracy: Any, fraction: float) -> float:
    """Mean over the lowest `fraction`, in (0, 1], of the classes (C,); nan where no class has an image.

    The class on the boundary counts with the part that belongs to the fraction, so the value is the
    conditional value at risk of the class accuracies (Rockafellar and Uryasev, Journal of Risk 2000). A
    fraction of at most one class gives the worst class; 1 gives the mean.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    ordered = np.sort(_present(class_accuracy))
    if not ordered.size:
        return float("nan")
    weight = np.clip(fraction * ordered.size - np.arange(ordered.size), 0, 1)
    return float(weight @ ordered / weight.sum())


def worst_class(class_accuracy: Any) -> float:
    """Lowest class accuracy; biased low by few images per class, so give n with it."""
    return float(min(_present(class_accuracy), default=float("nan")))


def nsd(class_accuracy: Any) -> float:
    """Normalised standard deviation of the class accuracies: population std / mean (arXiv:2312.05508).

    In [0, sqrt(C - 1)], lower is fairer; nan where every class has accuracy 0. The paper's divisor (C or
    C - 1) could not be confirmed; we divide by C.
    """
    present = _present(class_accuracy)
    return float(present.std() / present.mean()) if present.any() else float("nan")


def summary(kind: str, correct: Any, labels: Any, num_classes: int) -> dict[str, float]:
    """The metrics of one of the `KINDS` from outcomes (N,) and labels (N,), by their names in `NAMES`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    accuracy, n = class_accuracies(correct, labels, num_classes)
    values = {
        "{}_accuracy": float(np.mean(correct)) if n.sum() else float("nan"),
        "worst_class_{}_accuracy": worst_class(accuracy),
        "worst_tenth_{}_accuracy": lowest_mean(accuracy, 0.1),
        "{}_cvar": lowest_mean(accuracy, 0.2),
        "{}_nsd": nsd(accuracy),
    }
    return {form.format(kind): value for form, value in values.items()}


def _present(class_accuracy: Any) -> Array:
    values = np.asarray(class_accuracy, dtype=float)
    return values[~np.isnan(values)]
