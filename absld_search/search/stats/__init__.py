"""Statistics of few paired seeds and of many shared images: intervals, exact tests, corrections, power."""

from absld_search.search.stats.classes import ClassTest, mcnemar
from absld_search.search.stats.images import Interval, class_accuracies, over_both, over_images, resampled
from absld_search.search.stats.power import images_to_decide, seeds_to_decide
from absld_search.search.stats.ranks import spearman, spearman_interval
from absld_search.search.stats.seeds import ALPHA, Paired, floor, holm, mean_interval, paired, seeds_needed
from absld_search.search.stats.worst import arm_worst, debiased_worst, expected_worst, worst_interval

__all__ = [
    "ALPHA",
    "ClassTest",
    "Interval",
    "Paired",
    "arm_worst",
    "class_accuracies",
    "debiased_worst",
    "expected_worst",
    "floor",
    "holm",
    "images_to_decide",
    "mcnemar",
    "mean_interval",
    "over_both",
    "over_images",
    "paired",
    "resampled",
    "seeds_needed",
    "seeds_to_decide",
    "spearman",
    "spearman_interval",
    "worst_interval",
]
