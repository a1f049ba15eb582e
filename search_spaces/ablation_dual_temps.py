"""Does ABSLD need two sets of class temperatures, one for adversarial and one for clean labels?

Claim   The paper adapts them apart (arXiv:2312.05508). The released code divides both targets by
        tau_adv * tau_clean, so its published numbers may belong to the "product" arm.
Arms    dual     as in the paper
        shared   one set of temperatures for both targets, driven by the adversarial risk
        product  as in the released code
        rslad    no adaptation, all temperatures one: must equal RSLAD, and so checks the harness
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "dual": {"coupling": "dual"},
        "shared": {"coupling": "shared", "initial_temperature_clean": 1.0},  # has no clean set to start
        "product": {"coupling": "product"},
        "rslad": {
            "coupling": "dual",
            "temperature_lr": 0.0,
            "initial_temperature_adv": 1.0,
            "initial_temperature_clean": 1.0,
        },
    },
    tuned={
        "temperature_lr": LogUniform(1e-2, 1.0),
        "initial_temperature_adv": LogUniform(0.5, 2.0),
        "initial_temperature_clean": LogUniform(0.5, 2.0),
    },
)
