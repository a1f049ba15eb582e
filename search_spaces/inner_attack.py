"""What should the attack in training drive the student away from?

Claim   The paper's attack drives it away from the tempered label (arXiv:2312.05508), so that a class's temperature
        also changes how hard its images are attacked; RSLAD's (arXiv:2108.07969) is the teacher's plain label.
Arms    tempered  the paper's
        teacher   the teacher's label as it is
        ce        the true label
        adaad     the teacher's answer to the attacked image, which is attacked too (AdaAD, CVPR 2023)
        trades    the student's own answer to the clean image
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "tempered": {"attack_target": "tempered"},
        "teacher": {"attack_target": "teacher"},
        "ce": {"attack_target": "ce"},
        "adaad": {"attack_target": "adaad"},
        "trades": {"attack_target": "trades"},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
