"""Does it help to sharpen the hard classes, or would any classes do?

Claim   If ABSLD works as its paper says (arXiv:2312.05508), the benefit is lost when each class is moved by another's
        risk, whichever other it is, and turns round when hard classes get softer labels. `controls` asks more with
        nothing tuned; here every direction may find its own rate.
Arms    sharpen_hard  the paper's
        smooth_hard   the other way round
        permuted      each class is moved by the risk of another
        permuted_2    another permutation: one alone may be a lucky one
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "sharpen_hard": {"direction": "sharpen_hard"},
        "smooth_hard": {"direction": "smooth_hard"},
        "permuted": {"direction": "permuted", "permutation_seed": 0},
        "permuted_2": {"direction": "permuted", "permutation_seed": 1},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
