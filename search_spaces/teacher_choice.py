"""Does the choice of teacher matter more than adapting the temperatures?

Claim   A student inherits part of its teacher's unfairness (Yue et al., NeurIPS 2023); whether a fairer
        teacher helps more than adaptive temperatures is open.
Arms    absld  adaptive temperatures at the paper's settings, every teacher of the workload tried
        rslad  none, the same teachers: what the teacher does alone
"""

from absld_search.space import SearchSpace, Teachers

SPACE = SearchSpace(
    fixed={
        "method": "absld",
        "coupling": "dual",
        "initial_temperature_adv": 1.0,
        "initial_temperature_clean": 1.0,
    },
    arms={"absld": {"temperature_lr": 0.1}, "rslad": {"temperature_lr": 0.0}},
    tuned={"teacher": Teachers()},
)
