"""Does a short training rank settings as a long one does?

Claim   none in the papers, which train 200 to 300 epochs. Successive halving and every search on a small budget rest on
        it. Each length has its own schedule: the rate falls within it. The lengths are those of digits; for other
        workloads name theirs in a copy. The settings are a grid, so that the arms rank the same eight.
Arms    tenth  3 epochs
        third  10 epochs
        whole  30 epochs
"""

from absld_search.space import Choice, SearchSpace

SPACE = SearchSpace(
    fixed={"method": "absld"},
    arms={"tenth": {"epochs": 3}, "third": {"epochs": 10}, "whole": {"epochs": 30}},
    tuned={
        "temperature_lr": Choice((0.01, 0.1, 0.3, 1.0)),
        "coupling": Choice(("dual", "product")),
    },
)
