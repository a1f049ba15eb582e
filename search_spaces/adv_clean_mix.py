"""How much of the loss should be clean images?

Claim   RSLAD and ABSLD weigh adversarial to clean terms 5 to 1 (arXiv:2108.07969, arXiv:2312.05508). What suits the
        mean need not suit the worst class, which has less clean accuracy to give away.
Arms    absld  adaptive temperatures, the share is searched
        rslad  none, the share is searched: what the mix does alone
"""

from absld_search.space import SearchSpace, Uniform

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={"absld": {"temperature_lr": 0.1}, "rslad": {"temperature_lr": 0.0}},
    tuned={"adv_weight": Uniform(0.4, 1.0)},
)
