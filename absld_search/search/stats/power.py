"""How many seeds, or how many images, would decide a difference of a given size."""

import numpy as np
from scipy import stats
from scipy.special import ndtri

from absld_search.search.stats.seeds import ALPHA, seeds_needed

POWER = 0.8
MOST_SEEDS = 10_000


def seeds_to_decide(sd: float, difference: float = 0.01, comparisons: int = 1, power: float = POWER) -> int:
    """Paired seeds with which a true `difference` is decided with probability `power`; sd: of paired differences.

    From the power of the paired t test at ALPHA / comparisons, Holm's first step, and never fewer than the exact
    test needs to decide at all. At most 10,000, which means: not by seeds.
    """
    if sd < 0 or difference <= 0:
        raise ValueError(f"sd must not be negative and difference above 0, got {sd} and {difference}")
    n, low = seeds_needed(comparisons), seeds_needed(comparisons)
    high = MOST_SEEDS
    while low < high:
        n = (low + high) // 2
        low, high = (low, n) if _t_power(n, sd, difference, ALPHA / comparisons) >= power else (n + 1, high)
    return low


def _t_power(n: int, sd: float, difference: float, alpha: float) -> float:
    if sd == 0:
        return 1.0
    shift = difference / sd * np.sqrt(n)
    # From a shift of 20 on the chance is 1 to every digit, and SciPy's noncentral t loses them.
    return 1.0 if shift > 20 else float(stats.nct.sf(stats.t.ppf(1 - alpha / 2, n - 1), n - 1, shift))


def images_to_decide(discordance: float, difference: float = 0.01, comparisons: int = 1, power: float = POWER) -> int:
    """Images with which McNemar's test decides a true `difference` of two networks with probability `power`.

    discordance: share of images that they judge differently (Miettinen, Biometrics 1968). For a statement about
    one class it is the images of that class that count.
    """
    if difference <= 0 or not 0 <= discordance <= 1:
        raise ValueError(f"difference must be above 0, discordance in [0, 1], got {difference} and {discordance}")
    share = max(discordance, difference)  # a difference is made of images judged differently
    z = ndtri(1 - ALPHA / comparisons / 2) * np.sqrt(share) + ndtri(power) * np.sqrt(share - difference**2)
    return int(np.ceil((z / difference) ** 2))
