"""Is it the right class that must be sharpened, and is tempering more than weighting?

Claim   If ABSLD works as its paper says (arXiv:2312.05508), moving the temperatures by another class's risk, or
        the other way round, must not help; if it is more than re-weighting, giving every sample the length of
        its tempered pull but the direction of its plain label must not help as much.
Arms    absld         the paper
        rslad         no adaptation: what all others are compared with
        permuted      each class is moved by the risk of another, always the same
        smooth_hard   hard classes get softer labels
        norm_matched  plain labels; each pull on the student's logits is as long as the tempered one's
        product       what the released code computes
"""

from absld_search.space import SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "absld": {},
        "rslad": {"temperature_lr": 0.0},
        "permuted": {"direction": "permuted"},
        "smooth_hard": {"direction": "smooth_hard"},
        "norm_matched": {"norm_matched": True},
        "product": {"coupling": "product"},
    },
)
