"""Must temperatures keep moving, or is it enough to set them once?

Claim   The paper moves them after every epoch (arXiv:2312.05508); DAFA (arXiv:2401.12532) measures its classes once,
        after a warm-up, and never again. A rule that moves once is cheaper and easier to reason about.
Arms    adaptive  after every epoch
        once      after the third epoch and never again; the same rate moves a class that far only
        often     every second iteration, at the same rate each time
        rslad     never
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "adaptive": {"update_unit": "epoch"},
        "once": {"update_unit": "once", "update_every": 3},
        "often": {"update_unit": "iteration", "update_every": 2},
        "rslad": {"temperature_lr": 0.0},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
