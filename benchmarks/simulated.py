"""Made-up trainings with known truth: verdicts on shared images, correlated as configurations and seeds are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, owens_t

Array = NDArray[np.float64]

# Robust accuracies by class. "faal" is the AutoAttack row of a published log (FAAL, PRN-18 from TRADES).
PROFILES: dict[str, Array] = {
    "clear worst": np.array([0.25, 0.33, 0.38, 0.42, 0.46, 0.50, 0.54, 0.58, 0.62, 0.70]),
    "fair": np.array([0.33, 0.34, 0.36, 0.38, 0.42, 0.46, 0.50, 0.54, 0.58, 0.62]),
    "equal": np.full(10, 0.5),
    "faal": np.array([0.552, 0.692, 0.316, 0.288, 0.299, 0.363, 0.384, 0.488, 0.546, 0.582]),
}
CONFIGS, SEEDS = 0.166, 0.091  # measured share of images judged differently: other configuration, other seed


def correlation(discordance: float, accuracy: Array) -> float:
    """Correlation of the latent hardness at which two networks of these class accuracies differ that often."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        differ = 4 * owens_t(ndtri(accuracy), np.sqrt((1 - middle) / (1 + middle))).mean()
        low, high = (middle, high) if differ > discordance else (low, middle)
    return (low + high) / 2


def verdicts(
    rng: np.random.Generator, truth: Array, n: int, configs: float = CONFIGS, seeds: float = SEEDS
) -> NDArray[np.bool_]:
    """Verdicts (K, S, C, n) of K configurations with S seeds each, whose true class accuracies are (K, S, C).

    An image is right where its hardness lies below the class's quantile. Hardness is normal: a part that all
    share, one of the configuration and one of the training, so sized that two configurations differ on the
    share `configs` of images, and two seeds of one on the share `seeds`.
    """
    k, s, c = truth.shape
    between, within = (correlation(share, truth.mean(axis=(0, 1))) for share in (configs, seeds))
    within = max(between, within)
    draw = rng.standard_normal
    hardness = np.sqrt(between) * draw((1, 1, c, n)) + np.sqrt(within - between) * draw((k, 1, c, n))
    return hardness + np.sqrt(1 - within) * draw((k, s, c, n)) < ndtri(truth)[..., None]


def study(rng: np.random.Generator, configs: int = 100, level: float = 0.01, spread: float = 0.012) -> Array:
    """True class accuracies (configs, C) of a study: the "faal" profile, a level and a profile of each its own."""
    base = PROFILES["faal"] + level * rng.standard_normal((configs, 1))
    return np.clip(base + spread * rng.standard_normal((configs, base.shape[1])), 0.02, 0.98)
