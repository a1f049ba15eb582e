"""Which classes differ between two arms: McNemar's test on the images that they judge differently."""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from absld_search.search.stats.seeds import holm


class ClassTest(NamedTuple):
    """One class: its accuracy in an arm minus that in the first arm, and the images that speak for either."""

    label: int
    difference: float  # of the class accuracies, mean over seeds
    better: int  # images that the arm gets right with more seeds than the first arm
    worse: int
    p: float
    holm_p: float  # corrected for the number of classes


def mcnemar(correct: Any, against: Any, labels: Any) -> list[ClassTest]:
    """One test a class, for verdicts (S, N) of two arms at the same S seeds on the same images; labels (N,).

    Exact form (McNemar, Psychometrika 1947) with Holm's correction over the classes. Seeds see the same images,
    and their verdicts on one image hang together, so an image counts once: for the arm that got it right with
    more seeds; where both did so equally often it says nothing. So the test speaks of new images and of these
    trainings, not of new seeds.
    """
    correct, against, labels = np.asarray(correct, float), np.asarray(against, float), np.asarray(labels)
    if correct.shape != against.shape or correct.ndim != 2 or labels.shape != correct.shape[1:]:
        raise ValueError(f"verdicts {correct.shape} and {against.shape} must be (S, N), labels {labels.shape} (N,)")
    vote = (correct - against).sum(axis=0)
    present = np.unique(labels)
    counts = [(int((vote[labels == c] > 0).sum()), int((vote[labels == c] < 0).sum())) for c in present]
    p = [two_sided(better, worse) for better, worse in counts]
    mean = [float(vote[labels == c].mean() / len(correct)) for c in present]
    rows = zip(present, mean, counts, p, holm(p), strict=True)
    return [ClassTest(int(c), d, b, w, q, float(h)) for c, d, (b, w), q, h in rows]


def two_sided(better: int, worse: int) -> float:
    """P value of so uneven a split, or a more uneven one, by a fair coin; 1 where there is nothing to split."""
    fewer, n = min(better, worse), better + worse
    return float(min(1.0, 2 * binom.cdf(fewer, n, 0.5))) if n else 1.0
