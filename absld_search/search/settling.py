"""What a trial is worth once its trainings have ended: its state, its values, and what Optuna is told."""

from __future__ import annotations

from collections.abc import Mapping

from absld_search.search import constraints
from absld_search.search.arm_study import BUDGET, ArmStudy
from absld_search.search.halving import CONFIRM, JUDGED, RACE, SEARCH, Halving
from absld_search.search.ledger import COMPLETE, FAILED, FINAL, INFEASIBLE, Ledger, Row
from absld_search.search.plan import Plan
from absld_search.search.sharing import Sharing


class Settling:
    """Writes a trial's end into the ledger and into Optuna's study, as often as something new is known of it."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        studies: Mapping[str, ArmStudy],
        halving: Mapping[str, Halving],
        sharing: Sharing,
    ) -> None:
        self.plan, self.ledger = plan, ledger
        self.studies, self.halving, self.sharing = studies, halving, sharing

    def rows(self, trial: Row) -> list[Row]:
        """A trial's trainings that are not of the confirm stage, shared ones too."""
        own = [row for row in self.ledger.trainings(config=trial["config"]) if row["stage"] != CONFIRM]
        keys = {*self.sharing.rungs(trial)} - {row["training"] for row in own}
        return [*own, *(row for key in sorted(keys) for row in self.ledger.trainings(training=key))]

    def settle(self, trial: Row) -> Row:
        """Close `trial`, as the ledger has it, where its trainings have all ended, and tell Optuna; the trial as it is
        then."""
        rows = self.rows(trial)
        found = [row for row in rows if row["stage"] == SEARCH and row["config"] == trial["config"]]
        if not found:
            stopped = self.halving[trial["arm"]].stopped(trial)
            if stopped is None:
                return trial
            return trial | self._settle_rung(trial, rows, stopped)
        if all(row["state"] in FINAL for row in found):
            race = [row for row in rows if row["stage"] == RACE and row["state"] in FINAL]
            return trial | self._settle_whole(trial, found, race)
        return trial

    def _settle_rung(self, trial: Row, rows: list[Row], found: Row) -> Row:
        """A trial that has only been on rungs stands still, until it is promoted; what has changed of it."""
        halving, study = self.halving[trial["arm"]], self.studies[trial["arm"]]
        reasons = sorted({row["reason"] for row in rows if row["reason"]})
        changed = {"reason": "; ".join(reasons) or "nonfinite:objective", **found}
        self.ledger.finish_trial(trial["trial"], **changed)
        if found["state"] == FAILED:
            study.tell(trial["number"], None)
        else:
            values, lacks = halving.shortfall(trial)
            study.supersede(trial["number"], values, {BUDGET: lacks})
        return changed

    def _settle_whole(self, trial: Row, rows: list[Row], race: list[Row]) -> Row:
        raced = [row for row in race if row["state"] == COMPLETE]
        missing = {
            f"nonfinite:{name}@{row['epochs']}"
            for name in self.plan.objectives
            for row in rows
            if row["state"] == COMPLETE and name not in row["metrics"]
        }
        reason = "; ".join(sorted({row["reason"] for row in rows if row["reason"]} | missing))
        # A mean over the seeds that survived would flatter.
        whole = not missing and all(row["state"] == COMPLETE for row in rows)
        means = _means([row["metrics"] for row in [*rows, *raced]]) if whole else {}
        values = {name: means[name] for name in self.plan.objectives} if means else None
        broken = constraints.broken(self.plan.constraints, means) if means else ""
        lost = f"{len(race) - len(raced)} of {len(race)} more seeds failed" if len(raced) < len(race) else ""
        state = FAILED if values is None else INFEASIBLE if broken else COMPLETE
        said = "; ".join(filter(None, [reason, broken, lost]))
        changed = {"state": state, "reason": said, "objectives": values}
        self.ledger.finish_trial(trial["trial"], **changed)
        self._tell(trial, values, constraints.violations(self.plan.constraints, means))
        return changed

    def _tell(self, trial: Row, values: Mapping[str, float] | None, found: Mapping[str, float]) -> None:
        study, halving = self.studies[trial["arm"]], self.halving[trial["arm"]]
        if values is not None and halving.was_promoted(trial):
            study.supersede(trial["number"], values, found)
        else:
            study.tell(trial["number"], values, {**found, **({BUDGET: 0.0} if halving.on else {})})

    def race_over(self, arm: str, trials: list[Row]) -> None:
        """Tell Optuna what the race of an arm has made of its trials: once, for each telling is a trial there."""
        raced = {row["config"] for row in self.ledger.trainings(stage=RACE)}
        for trial in trials:
            if trial["config"] in raced and trial["objectives"]:
                rows = [row for row in self.rows(trial) if row["stage"] in JUDGED and row["state"] == COMPLETE]
                found = constraints.violations(self.plan.constraints, _means([row["metrics"] for row in rows]))
                self.studies[arm].correct(trial["number"], trial["objectives"], found)


def _means(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """Of every metric that all have."""
    names = set.intersection(*(set(row) for row in rows))
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}
