"""Do class weights or class margins of other papers add anything to adaptive temperatures?

Claim   none for the combination. CFA (arXiv:2303.14460) shrinks the radius of hard classes, DAFA (arXiv:2401.12532)
        enlarges it and weights them; which of the two directions composes with tempering is open.
Arms    absld          temperatures alone
        weights_fair   and Fair-ARD's weights
        weights_dafa   and DAFA's weights
        margin_cfa     and CFA's radii
        margin_dafa    and DAFA's radii
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "absld": {},
        "weights_fair": {"class_weights": "fair_ard"},
        "weights_dafa": {"class_weights": "dafa"},
        "margin_cfa": {"class_margin": "cfa"},
        "margin_dafa": {"class_margin": "dafa"},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
