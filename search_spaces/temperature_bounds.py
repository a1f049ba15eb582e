"""Do the bounds of the temperatures decide where the classes end?

Claim   The paper keeps temperatures in [0.5, 5] (arXiv:2312.05508). If classes sit on their bounds at the end, the
        bounds are the method, and a rule with two levels would do as well.
Arms    paper   0.5 to 5
        narrow  0.8 to 1.25: hardly more than RSLAD
        wide    0.25 to 25
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "paper": {"temperature_min": 0.5, "temperature_max": 5.0},
        "narrow": {"temperature_min": 0.8, "temperature_max": 1.25},
        "wide": {"temperature_min": 0.25, "temperature_max": 25.0},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
