"""Multi-objective successive halving: which configuration deserves a longer training, decided from results alone.

Asynchronous successive halving (Li et al., MLSys 2020, arXiv:1810.05934) with the order of a rung taken from
non-dominated ranks and, within a rank, an epsilon-net (Schmucker et al., arXiv:2106.12639). Not a Ray TrialScheduler:
Ray's can stop or continue a training, but a rung here is a training of its own, whose learning rate falls within its
own epochs; a training cut off before its first drop would be ranked at a high learning rate. And what is decided from
results alone needs no memory: after a kill, the rungs are what the ledger says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from absld_search.search import fronts

STOPPING = ("none", "asha", "mo-asha")
ETA = 3
FLOOR = 2.0  # times chance


class Outcome(NamedTuple):
    """What a trial was worth after a training of `epochs`. `values` None: it failed or is not finite."""

    trial: str
    epochs: int
    values: tuple[float, ...] | None
    accuracy: float = 1.0  # mean robust accuracy, which the floor is about
    violations: Mapping[str, float] = {}  # of each constraint, above 0 where it is broken: for samplers


@dataclass(frozen=True)
class Rules:
    """How rungs are ordered and halved. `epochs` ascend; the last is the whole training.

    An objective in `held_back` is a spread between classes, small for a network that has learned nothing: below the
    `floor` of the mean robust accuracy it takes no part, and a trial below stands behind every trial above.
    """

    kind: str  # one of STOPPING
    epochs: tuple[int, ...]
    directions: tuple[str, ...]
    eta: int = ETA
    held_back: frozenset[int] = frozenset()  # which of the objectives
    floor: float = 0.0


class Place(NamedTuple):
    """Where a trial stands on its rung."""

    trial: str
    rank: int  # non-dominated; trials below the floor rank behind all others


def ordered(outcomes: Sequence[Outcome], rules: Rules, first: int | None = None) -> list[Place]:
    """A rung's trials, the best first; failed ones are not in it. Ties go to the one that came first.

    `first`: how many must be in their order; those behind stand by rank alone, which costs less.
    """
    first = len(outcomes) if first is None else first
    alive = [each for each in outcomes if each.values is not None and all(map(math.isfinite, each.values))]
    above = [each for each in alive if each.accuracy >= rules.floor]
    below = [each for each in alive if each.accuracy < rules.floor]
    every = range(len(rules.directions))
    left = [index for index in every if index not in rules.held_back] or list(every)
    found = _order(above, rules, list(every), 0, first)
    return [*found, *_order(below, rules, left, len(above), first - len(above))]


def _order(outcomes: Sequence[Outcome], rules: Rules, which: Sequence[int], behind: int, first: int) -> list[Place]:
    if not outcomes:
        return []
    values = [[(each.values or ())[index] for index in which] for each in outcomes]
    directions = [rules.directions[index] for index in which]
    if rules.kind == "asha":
        values, directions = [row[:1] for row in values], directions[:1]
    ranks = fronts.ranks(values, directions)
    found: list[Place] = []
    for rank in sorted(set(ranks.tolist())):
        members = [index for index, own in enumerate(ranks) if own == rank]
        net = first - len(found)
        order = fronts.net_order([values[i] for i in members], directions, net) if net > 0 else range(len(members))
        found += [Place(outcomes[members[index]].trial, behind + rank) for index in order]
    return found


class Orders:
    """The rungs' orders as they were found last: a look costs the ranking of those rungs alone that have changed."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[list[Outcome], int, list[Place]]] = {}  # epochs -> (outcomes, first, their order)

    def of(self, epochs: int, outcomes: list[Outcome], rules: Rules, first: int) -> list[Place]:
        """The same as `ordered`."""
        known = self.known.get(epochs)
        if known is None or known[:2] != (outcomes, first):
            known = self.known[epochs] = (outcomes, first, ordered(outcomes, rules, first))
        return known[2]


def promotion(
    outcomes: Sequence[Outcome], asked: Mapping[str, int], rules: Rules, more: bool, orders: Orders | None = None
) -> tuple[str, int] | None:
    """(trial, epochs) of the next longer training, None where none is deserved yet.

    `asked`: the longest training that each trial has been given, running ones too. `more`: new trials can still come.
    While a rung may still grow, a whole eta must have come for each that goes on; once it can't, the remainder counts
    too, so that the best of a small study is always trained to the end.
    """
    if rules.kind == "none":  # the budget is larger now: whoever was stopped before goes to the end, in turn
        last = rules.epochs[-1]
        return next(((trial, last) for trial, epochs in asked.items() if epochs < last), None)
    orders = orders or Orders()
    closed = not more
    found = None
    for epochs, longer in zip(rules.epochs, rules.epochs[1:], strict=False):
        here = [each for each in outcomes if each.epochs == epochs]
        stand = {trial for trial, longest in asked.items() if longest == epochs}
        closed = closed and stand <= {each.trial for each in here}  # else one still runs
        share = math.ceil(len(here) / rules.eta) if closed else len(here) // rules.eta
        waiting = _deserving(orders.of(epochs, here, rules, share), share, stand)
        if waiting:
            found, closed = (waiting, longer), False  # the longest rung that can be fed goes first
    return found


def _deserving(places: Sequence[Place], share: int, here: set[str]) -> str | None:
    """The best of the first `share` that is still `here`, on the rung.

    Once that many have gone on, only a better rank goes on as well: the net alone, which turns with every newcomer,
    would send nearly everybody.
    """
    gone = [place.rank for place in places if place.trial not in here]
    for place in places[:share]:
        if place.trial in here and (len(gone) < share or place.rank < max(gone)):
            return place.trial
    return None


def seen(outcomes: Sequence[Outcome], rules: Rules, least: int) -> list[Outcome]:
    """What a sampler should learn from: the deepest rung with at least `least` finite outcomes (after BOHB, Falkner
    et al., ICML 2018). Outcomes of different lengths in one model would tell it of epochs, not of configurations."""
    alive = [each for each in outcomes if each.values is not None]
    for epochs in reversed(rules.epochs):
        found = [each for each in alive if each.epochs == epochs]
        if len(found) >= least:
            return found
    return [each for each in alive if each.epochs == rules.epochs[0]]
