"""Does averaging the weights do what adaptive temperatures do?

Claim   FAWA alone gains one or two points in the worst class (CFA, arXiv:2303.14460); with ABSLD it was not tried in
        what could be read.
Arms    absld       no average
        absld_ema   an average of the weights is evaluated
        absld_fawa  only weights whose worst class is good enough enter the average
        rslad       neither
        rslad_fawa  the average alone
"""

from absld_search.space import SearchSpace, Uniform

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "absld": {"averaging": "none", "averaging_decay": 0.85},
        "absld_ema": {"averaging": "ema"},
        "absld_fawa": {"averaging": "fawa"},
        "rslad": {"averaging": "none", "temperature_lr": 0.0, "averaging_decay": 0.85},
        "rslad_fawa": {"averaging": "fawa", "temperature_lr": 0.0},
    },
    tuned={"averaging_decay": Uniform(0.6, 0.95)},
)
