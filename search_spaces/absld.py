"""Which setting of ABSLD defends the worst class best, when everything of its own is free?

Claim   none: a search, not a comparison. The front shows what the worst class costs on average.
Arms    absld  temperature rate, both starts, the coupling with its strength, and the teacher are searched
"""

from absld_search.space import Choice, LogUniform, SearchSpace, Teachers, Uniform

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={"absld": {}},
    tuned={
        "temperature_lr": LogUniform(1e-2, 1.0),
        "initial_temperature_adv": LogUniform(0.5, 2.0),
        "initial_temperature_clean": LogUniform(0.5, 2.0),
        "coupling": Choice(("dual", "shared", "product", "adv_only", "clean_only", "mixed")),
        "coupling_strength": Uniform(0.0, 1.0, when={"coupling": "mixed"}),
        "teacher": Teachers(),
    },
)
