"""Does it matter which epoch's weights are handed out?

Claim   Papers report the best epoch, many of them by the worst class or on test; late epochs of adversarial training
        overfit, classes at different times (Rice et al., ICML 2020, arXiv:2002.11569; CFA, arXiv:2303.14460). What is
        the rule worth beside the temperatures? `val` is looked at every few epochs, as the workload says.
Arms    last       the last epoch, as everywhere else here
        best       the best epoch by mean robust accuracy: early stopping
        best_both  by mean plus worst class: the rule of ABSLD and CFA
        best_worst by the worst class alone, which is noisy: the best of noise
        ema        an average of the weights over epochs, at the end
        oracle     best_both on test, as many released codes do: how much that flatters, and no arm to choose
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "last": {"selection": "last"},
        "best": {"selection": "avg"},
        "best_both": {"selection": "avg+worst"},
        "best_worst": {"selection": "worst"},
        "ema": {"selection": "last", "averaging": "ema"},
        "oracle": {"selection": "oracle:avg+worst"},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
