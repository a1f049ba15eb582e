"""Does a fairer teacher help more than adaptive temperatures?

Claim   Fair-ARD (NeurIPS 2023) reports that a student inherits its teacher's unfairness in part only. Whether a teacher
        that was trained to be fair saves the temperatures is open. The networks named here are digits' teachers; for
        other workloads name theirs in a copy.
Arms    plain_rslad  the usual teacher, no adaptation
        plain_absld  the usual teacher, adaptive temperatures
        fair_rslad   a teacher of the same size, trained by DAFA (arXiv:2401.12532), no adaptation
        fair_absld   both
"""

from absld_search.space import SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "plain_rslad": {"temperature_lr": 0.0, "teacher": "train:trades:cnn-24"},
        "plain_absld": {"temperature_lr": 0.1, "teacher": "train:trades:cnn-24"},
        "fair_rslad": {"temperature_lr": 0.0, "teacher": "train:dafa:cnn-24"},
        "fair_absld": {"temperature_lr": 0.1, "teacher": "train:dafa:cnn-24"},
    },
)
