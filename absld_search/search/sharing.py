"""Whose a training is. One can be a rung of one arm's trial and the whole training of another's: it is trained once,
and stands in the ledger under the configuration whose whole training it is, if there is one."""

from __future__ import annotations

from absld_search.core import rungs
from absld_search.search.ledger import Ledger, Row
from absld_search.search.plan import Plan


class Sharing:
    """Trials by what a training is called: those of its configuration, and those that it is a rung of."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan = plan
        self.trials: dict[str, list[str]] = {}  # a configuration, or the key of a rung -> names
        self.keys: dict[str, list[str]] = {}  # trial -> its rungs that another may have
        # Where all are of one length, who has a rung in common has the configuration in common.
        differ = len({plan.config(arm.words, 0).schedule.epochs for arm in plan.arms}) > 1
        # The queue notes the rungs that an arm has, or had in an earlier start.
        rungs_of = {arm.name: sorted(ledger.facts(f"rung:{arm.name}:").values()) for arm in plan.arms if differ}
        self.lengths = {arm.name: rungs_of.get(arm.name, []) for arm in plan.arms}

    def add(self, trial: Row) -> None:
        """A trial of the ledger."""
        self.keys[trial["trial"]] = self._rungs(trial)
        for name in (trial["config"], *self.keys[trial["trial"]]):
            self.trials.setdefault(name, []).append(trial["trial"])

    def rungs(self, trial: Row) -> list[str]:
        """Keys of the rungs that a trial may share with another configuration."""
        return self.keys[trial["trial"]]

    def _rungs(self, trial: Row) -> list[str]:
        if not (lengths := self.lengths[trial["arm"]]):
            return []
        whole = self.plan.config(trial["words"], self.plan.search_seeds[0])
        return [rungs.at(whole, epochs).key for epochs in lengths]

    def of(self, training: Row) -> list[str]:
        """Names of the trials that a training of the ledger belongs to."""
        names = [*self.trials.get(training["config"], ()), *self.trials.get(training["training"], ())]
        return list(dict.fromkeys(names))
