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
    "shrunken_worst_class_{}_accuracy": "max",
    "{}_cvar": "max",
    "{}_softmin": "max",
    "{}_nsd": "min",
    "{}_nsd_sample": "min",
}
NAMES: dict[str, str] = {form.format(kind): direction for kind in KINDS for form, direction in _FORMS.items()}
"""Every metric's name -> its better direction, "max" or "min"."""

MANY_CLASSES = 50  # from here on a fifth of the classes is no longer a tail, and a class has few images
SOFTNESS = 0.05  # temperature of the soft minimum, in accuracy


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
    present = _present(class_accuracy)
    return float(lowest_means(present, fraction)) if present.size else float("nan")


def lowest_means(class_accuracy: Any, fraction: float) -> Array:
    """The same along the last axis, (..., C) -> (...), where every class has images."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    ordered = np.sort(np.asarray(class_accuracy, dtype=float), axis=-1)
    size = ordered.shape[-1]
    weight = np.clip(fraction * size - np.arange(size), 0, 1)
    return np.asarray(ordered @ weight / weight.sum())


def worst_class(class_accuracy: Any) -> float:
    """Lowest class accuracy; biased low by few images per class, so give n with it."""
    return float(min(_present(class_accuracy), default=float("nan")))


def tail_objective(num_classes: int, kind: str = "robust") -> str:
    """Name of the metric that a search maximises for its worst classes: CVaR-20 %, for many classes CVaR-10 %.

    `kind`: the same metric under another attack, one of the `KINDS`. Both are means over several classes: less
    noisy than the minimum, and less biased against fair models. docs/statistics.md compares them with other forms.
    """
    return ("worst_tenth_{}_accuracy" if num_classes >= MANY_CLASSES else "{}_cvar").format(kind)


def kind_of(name: str) -> str:
    """The one of the `KINDS` that a metric's name holds; "" where it holds none."""
    return next((part for part in name.split("_") if part in KINDS), "")


def is_fraction(name: str) -> bool:
    """Whether a metric is an accuracy or a mean of some, in [0, 1]."""
    return name.endswith(("_accuracy", "_cvar", "_softmin"))


def form_of(name: str) -> str:
    """A metric's name with "{}" in place of its kind: robust_cvar -> {}_cvar."""
    return "_".join("{}" if part in KINDS else part for part in name.split("_"))


def soft_min(class_accuracy: Any, temperature: float = SOFTNESS) -> float:
    """Soft minimum over the classes (C,): -t log mean exp(-a / t), temperature t > 0 in units of accuracy.

    It lies between the minimum, which it reaches as t goes to 0, and the mean, which it reaches as t grows.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    present = _present(class_accuracy)
    if not present.size:
        return float("nan")
    lowest = present.min()  # taken out of the sum, so that no exponential underflows
    return float(lowest - temperature * np.log(np.mean(np.exp((lowest - present) / temperature))))


def shrunken(class_accuracy: Any, n: Any) -> Array:
    """Class accuracies (..., C) pulled towards their mean, as far as their spread is no more than n images explain.

    Empirical Bayes with a normal prior (Efron and Morris, JASA 1973), each class with its own binomial
    variance; n (C,) or a number, at least 1; no nan.
    """
    accuracy = np.asarray(class_accuracy, dtype=float)
    variance = binomial_variance(accuracy, n)
    mean = accuracy.mean(axis=-1, keepdims=True)
    spread = accuracy.var(axis=-1, ddof=1, keepdims=True) if accuracy.shape[-1] > 1 else np.zeros_like(mean)
    between = np.maximum(spread - variance.mean(axis=-1, keepdims=True), 0)
    return mean + between / (between + variance) * (accuracy - mean)


def binomial_variance(accuracy: Any, n: Any) -> Array:
    """Variance of an accuracy from n images; half a hit and half a miss are added, so that 0 and 1 have one too."""
    smoothed = (np.asarray(accuracy, dtype=float) * n + 0.5) / (np.asarray(n) + 1)
    return np.asarray(smoothed * (1 - smoothed) / n)


def nsd(class_accuracy: Any, ddof: int = 0) -> float:
    """Normalised standard deviation of the class accuracies: std / mean (arXiv:2312.05508).

    In [0, sqrt(C - 1)], lower is fairer; nan where every class has accuracy 0. The paper's divisor could not be
    confirmed, so there are both: C (`ddof` 0, the population's) and C - 1 (`ddof` 1, the sample's).
    """
    present = _present(class_accuracy)
    return float(present.std(ddof=ddof) / present.mean()) if present.any() and present.size > ddof else float("nan")


def rho(average: float, worst: float, base_average: float, base_worst: float) -> float:
    """What a method gains in the worst class, relative to a base, minus what it loses on average, relative too.

    WAT (Li and Liu, AAAI 2023, arXiv:2302.04025): higher is better, 0 for the base itself; nan where the base's
    accuracy is 0.
    """
    if not base_average or not base_worst:
        return float("nan")
    return (worst - base_worst) / base_worst - (base_average - average) / base_average


def summary(kind: str, correct: Any, labels: Any, num_classes: int) -> dict[str, float]:
    """The metrics of one of the `KINDS` from outcomes (N,) and labels (N,), by their names in `NAMES`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    accuracy, n = class_accuracies(correct, labels, num_classes)
    values = {
        "{}_accuracy": float(np.mean(correct)) if n.sum() else float("nan"),
        "worst_class_{}_accuracy": worst_class(accuracy),
        "worst_tenth_{}_accuracy": lowest_mean(accuracy, 0.1),
        "shrunken_worst_class_{}_accuracy": worst_class(shrunken(accuracy[n > 0], n[n > 0])) if n.any() else np.nan,
        "{}_cvar": lowest_mean(accuracy, 0.2),
        "{}_softmin": soft_min(accuracy),
        "{}_nsd": nsd(accuracy),
        "{}_nsd_sample": nsd(accuracy, ddof=1),
    }
    return {form.format(kind): value for form, value in values.items()}


def _present(class_accuracy: Any) -> Array:
    values = np.asarray(class_accuracy, dtype=float)
    return values[~np.isnan(values)]
