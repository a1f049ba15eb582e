"""How fast should class temperatures move?

Claim   The paper's rate is 0.1 per epoch, after dividing by the largest gap (arXiv:2312.05508): the most
        deviating class always moves by the full rate, however small its gap is.
Arms    adaptive  the rate is searched over two and a half decades
        frozen    rate zero, the control: RSLAD
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={
        "method": "absld",
        "coupling": "dual",
        "initial_temperature_adv": 1.0,
        "initial_temperature_clean": 1.0,
    },
    arms={"adaptive": {}, "frozen": {"temperature_lr": 0.0}},
    tuned={"temperature_lr": LogUniform(3e-3, 1.0)},
)
