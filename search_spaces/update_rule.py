"""How should a class's gap in risk become a step of its temperature?

Claim   The paper divides by the largest gap (arXiv:2312.05508), so the most deviating class always moves by the full
        rate, however small its gap is; with many classes that follows one noisy class.
Arms    max_gap           the paper's
        std               gaps in standard deviations over the classes
        sign              every class by the full rate, up or down
        log_proportional  the logarithm of the temperature moves, in proportion to the gap
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "max_gap": {"update_normaliser": "max_gap"},
        "std": {"update_normaliser": "std"},
        "sign": {"update_normaliser": "sign"},
        "log_proportional": {"update_normaliser": "log_proportional"},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
