"""Does ABSLD need a teacher at all?

Claim   Its extension (arXiv:2506.08611) tempers labels that need none: an average of the student's own weights, or
        smoothed labels. They cost no teacher's passes.
Arms    teacher          the paper's
        ema              the student's own average, mixed with the true label
        label_smoothing  smoothed labels
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={
        "teacher": {"label_source": "teacher"},
        "ema": {"label_source": "ema"},
        "label_smoothing": {"label_source": "label_smoothing"},
    },
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
