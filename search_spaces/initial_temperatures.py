"""Does it matter at which temperatures the classes start?

Claim   The paper starts every class at 1 (arXiv:2312.05508). A softer or sharper start changes the labels
        of the first epochs, before the risks have said anything.
Arms    both   the adversarial and the clean start are searched apart
        adv    only the adversarial start is searched
        clean  only the clean start is searched
        paper  both start at 1
"""

from absld_search.space import LogUniform, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld", "coupling": "dual", "temperature_lr": 0.1},
    arms={
        "both": {},
        "adv": {"initial_temperature_clean": 1.0},
        "clean": {"initial_temperature_adv": 1.0},
        "paper": {"initial_temperature_adv": 1.0, "initial_temperature_clean": 1.0},
    },
    tuned={
        "initial_temperature_adv": LogUniform(0.5, 4.0),
        "initial_temperature_clean": LogUniform(0.5, 4.0),
    },
)
