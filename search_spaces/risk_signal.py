"""What should say that a class is hard?

Claim   The paper takes the cross-entropy on adversarial training images (arXiv:2312.05508). CSR (arXiv:2501.13273)
        argues that classes which are hard in training need not be those that are hard in the end.
Arms    ce            the paper's
        kl            the divergence from the teacher's labels
        robust_error  the share of images that the attack fools
        kappa         how many steps of the attack an image survives
        monitor_ce    cross-entropy on images that are not trained on, where the workload keeps some
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "ce": {"risk_signal": "ce"},
        "kl": {"risk_signal": "kl"},
        "robust_error": {"risk_signal": "robust_error"},
        "kappa": {"risk_signal": "kappa"},
        "monitor_ce": {"risk_signal": "monitor_ce"},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
