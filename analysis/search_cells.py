"""The tables about a search as rows of short strings: cost, rungs, states, failures, places on the front."""

import math

from absld_search.core.results import Tables
from analysis import standing
from analysis.cells import MISSING
from analysis.spending import costs as costs_of

ROWS_SHOWN = 30  # of failures and places; a page is read, not searched
COST_LEGEND = (
    "Hours of training, summed over trainings, so two that run at once count twice; search: with rungs and races, and "
    "with what failed. A training that two arms share counts in both; one taken over from another study, with what it "
    "took there. A dash: that was not recorded."
)
PLACES_LEGEND = (
    "Trials with several seeds, of the search or of a race: how probable it is, by a parametric bootstrap over seeds "
    "with the pooled noise of one seed, that a trial's true mean is on its arm's front, and on the joint front of all "
    "arms; last, on the joint front with new images of val too (bootstrap over images, the same for all trials; "
    "a dash: verdicts are missing, or are of more than 300 trainings)."
)
STATES = ("COMPLETE", "STOPPED", "INFEASIBLE", "FAILED", "RUNNING", "WAITING")
Made = tuple[list[str], list[list[str]]]


def costs(tables: Tables) -> Made:
    """Heading and one row of cells an arm, and one for all of them."""
    found = costs_of(tables)
    rows = [
        [cost.arm, str(cost.trials), str(cost.trainings), f"{cost.epochs:,}", _hours(cost.search), _hours(cost.confirm)]
        for cost in found
    ]
    if len(found) > 1:
        sums = [sum(column) for column in zip(*(cost[1:] for cost in found), strict=True)]
        rows.append(["all", str(sums[0]), str(sums[1]), f"{sums[2]:,}", _hours(sums[3]), _hours(sums[4])])
    return ["arm", "complete trials", "trainings", "epochs", "search, hours", "confirm, hours"], rows


def states(tables: Tables) -> Made:
    """Heading and one row of cells an arm; states that no trial is in are left out."""
    found = standing.states(tables)
    present = [state for state in STATES if any(counts[state] for _, counts in found)] or ["COMPLETE"]
    return (
        ["arm", *(state.lower() for state in present)],
        [[arm, *(str(counts[state]) for state in present)] for arm, counts in found],
    )


def failures(tables: Tables) -> Made:
    """Heading and one row of cells a reason, the most frequent first."""
    found = standing.failures(tables)
    rows = [[f.arm, f.stage, str(f.times), f.reason, f.example] for f in found[:ROWS_SHOWN]]
    if len(found) > ROWS_SHOWN:
        left = found[ROWS_SHOWN:]
        rows.append(["", "", str(sum(f.times for f in left)), f"{len(left)} more reasons", ""])
    return ["arm", "stage", "times", "reason", "for example"], rows


def rungs(tables: Tables) -> Made:
    """Heading and one row of cells a rung of an arm."""
    rows = [[rung.arm, str(rung.epochs), str(rung.trials), str(rung.ended)] for rung in standing.rungs(tables)]
    return ["arm", "epochs", "trials trained so far", "and no longer"], rows


def places(tables: Tables) -> Made:
    """Heading and one row of cells a raced trial, likeliest first."""
    found = standing.places(tables)[:ROWS_SHOWN]
    rows = [
        [place.trial, str(place.seeds), _share(place.own), _share(place.joint), _share(place.images)] for place in found
    ]
    return ["trial", "seeds", "on its arm's front", "on the joint front", "with new images"], rows


def _hours(value: float) -> str:
    if math.isnan(value):
        return MISSING
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def _share(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.0f} %"
