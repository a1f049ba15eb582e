"""Do the paper's settings of ABSLD carry over to this workload, or must they be found anew?

Claim   The paper uses one setting for all its data sets and networks (arXiv:2312.05508). Asked on one workload after
        the other, this says what a search of one's own is worth there.
Arms    paper  the paper's settings, nothing searched
        own    rate, both starts and the mix are searched here
"""

from absld_search.space import LogUniform, SearchSpace, Uniform

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "paper": {
            "temperature_lr": 0.1,
            "initial_temperature_adv": 1.0,
            "initial_temperature_clean": 1.0,
            "adv_weight": 5 / 6,
        },
        "own": {},
    },
    tuned={
        "temperature_lr": LogUniform(1e-2, 1.0),
        "initial_temperature_adv": LogUniform(0.5, 2.0),
        "initial_temperature_clean": LogUniform(0.5, 2.0),
        "adv_weight": Uniform(0.5, 1.0),
    },
)
