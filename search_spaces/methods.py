"""Which method of the field defends the worst class best, at the same budget and with its paper's own settings?

Claim   none: a comparison. Every arm has the workload's student, teachers, optimizer, schedule, attack and
        epochs; only the method differs. Methods that start from a robust model pay for it out of these epochs.
Arms    one per method, sat first: the baseline that knows nothing of classes or teachers. frl_rw is FRL
        without its radii; cfa_sat is CFA on standard training; absld_released is what ABSLD's release computes;
        absld_self and absld_smoothing are its forms without a teacher.
Tuned   the learning rate, in every arm: losses that are averaged over classes as well (RSLAD's line) want one
        about ten times larger than the others, and at a single rate one family or the other would look broken.
"""

from absld_search.space import Choice, SearchSpace

SPACE = SearchSpace(
    fixed={},
    arms={
        "sat": {"method": "sat"},
        "trades": {"method": "trades"},
        "ard": {"method": "ard"},
        "iad": {"method": "iad"},
        "rslad": {"method": "rslad"},
        "adaad": {"method": "adaad"},
        "adaiad": {"method": "adaiad"},
        "mtard": {"method": "mtard"},
        "frl": {"method": "frl"},
        "frl_rw": {"method": "frl", "remargin": False, "slack": 0.1},
        "bat": {"method": "bat"},
        "cfa": {"method": "cfa"},
        "cfa_sat": {"method": "cfa", "base": "sat", "margin_base": 0.5, "attack_start": "uniform"},
        "wat": {"method": "wat"},
        "cfol": {"method": "cfol"},
        "fair_ard": {"method": "fair-ard"},
        "fair_iad": {"method": "fair-iad"},
        "fair_rslad": {"method": "fair-rslad"},
        "fair_mtard": {"method": "fair-mtard"},
        "dafa": {"method": "dafa"},
        "faal": {"method": "faal"},
        "ham": {"method": "ham"},
        "csr": {"method": "csr"},
        "fairat_style": {"method": "fairat"},
        "absld": {"method": "absld"},
        "absld_released": {"method": "absld", "released": True},
        "absld_self": {"method": "absld", "label_source": "ema"},
        "absld_smoothing": {"method": "absld", "label_source": "label_smoothing"},
    },
    tuned={"learning_rate": Choice((0.1, 0.5))},
)
