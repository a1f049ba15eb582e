"""What is trained next, and what a result means. Knows the ledger and Optuna; knows nothing of Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from absld_search.search import constraints, costs, racing
from absld_search.search.arm_study import BUDGET, ArmStudy, Seen
from absld_search.search.choices import choice
from absld_search.search.halving import RUNG, SEARCH, Halving, job
from absld_search.search.ledger import COMPLETE, FAILED, FINAL, INFEASIBLE, WAITING, Ledger, Row
from absld_search.search.optuna_storage import open_storage
from absld_search.search.plan import Arm, Plan

RACE, CONFIRM = "race", "confirm"
JUDGED = (SEARCH, RACE)  # whose values a trial's objectives are means of
RACE_SEEDS_FROM = 500  # seed indices that neither search nor confirm use
TRIES, LOSSES = 3, 9  # of a training that the machine ends: in one start, and in all before it counts as FAILED
LOST_IN_A_ROW = 2  # trainings that a start has given up, and none completed since: then the machines are to blame


class Observer(Protocol):
    """Who wants to know. Nothing that an observer does can change the study."""

    def started(self, training: Row) -> None: ...
    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None: ...
    def training_done(self, training: Row) -> None: ...
    def trial_done(self, trial: Row) -> None: ...


class Queue:
    """The study's next step, at any moment a function of the ledger alone, so a kill costs nothing here."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger
        for arm in plan.arms:
            ledger.fact(f"fingerprint:{arm.name}", plan.fingerprint(arm))
        storage = open_storage(plan.request.storage)
        self.studies = {arm.name: ArmStudy(plan, arm, storage) for arm in plan.arms}
        self.halving = {arm.name: Halving(plan, arm, ledger) for arm in plan.arms}
        self.costs = costs.Costs(plan, ledger)
        self.running: set[str] = set()
        self.idle = False  # nothing was to be had, and nothing has ended since
        self.lost: Counter[str] = Counter()  # trainings that the machine ended in this start
        self.barren: set[str] = set()  # of these those given up since one completed
        self.paused = ""  # why nothing more is handed out
        self._recover()

    def _recover(self) -> None:
        """Put right what a killed driver left half done."""
        self.ledger.requeue()
        self.ledger.forget_waiting(CONFIRM, self.plan.confirm_seeds)
        for arm in self.plan.arms:
            known = {trial["number"]: trial for trial in self.ledger.trials(arm=arm.name)}
            unfinished = set(self.studies[arm.name].running())
            for number in unfinished - set(known):  # asked for, but never written down: nobody waits for it
                self.studies[arm.name].drop(number)
            for trial in known.values():
                if trial["state"] not in FINAL or trial["number"] in unfinished or self._may_be_told_twice(trial):
                    self._settle(trial)

    def _may_be_told_twice(self, trial: Row) -> bool:
        """Optuna may know only that it stopped: a kill can come between the ledger's word and the second telling."""
        return trial["state"] in (COMPLETE, INFEASIBLE) and self.halving[trial["arm"]].was_on_a_rung(trial)

    def take(self) -> Row | None:
        """The next training, now RUNNING. None: nothing to do until something that runs has ended."""
        if self.idle and self.running:
            return None  # Tune asks again and again, and each look reads every trial there is
        row = self.ledger.take(leave=self.given_up()) if not self.paused and self.ready() else None
        self.idle = row is None
        if row is not None:
            self.running.add(row["training"])
        return row

    def ready(self) -> bool:
        """Whether a training waits, after asking for new ones where none does."""
        while {row["training"] for row in self.ledger.trainings(state=WAITING)} <= self.given_up():
            if not self._more():
                return False
        return True

    def _more(self) -> bool:
        """Queue something new; False where there is nothing, or where machines lose whatever they are handed."""
        if len(self.barren) >= LOST_IN_A_ROW:  # a search would be asked to its end without having seen a result
            return False
        return self._promote() or self._ask() or self._race() or self._confirm()

    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to do. Call after `take` has given None."""
        return not self.running

    def done(self, training: str, metrics: Mapping[str, float] | None, reason: str, **facts: Any) -> list[Row]:
        """Write down how a training ended; the trials that this decides."""
        bad = [name for name, value in (metrics or {}).items() if not math.isfinite(value)]
        if bad:  # the last gate before the ledger, Optuna and the fronts
            metrics, reason = None, f"nonfinite:metric-{bad[0]}@{facts.get('epochs', 0)}"
        state = FAILED if metrics is None else COMPLETE
        if state == COMPLETE:
            self.barren.clear()
        self.ledger.finish_training(training, state=state, reason=reason, metrics=metrics, **facts)
        self._left(training)
        (row,) = self.ledger.trainings(training=training)
        if row["stage"] == CONFIRM:
            return []
        trials = self.ledger.trials(config=row["config"])
        for trial in trials:
            self.costs.add(trial["arm"], row)
            self.halving[trial["arm"]].ended(trial, row)
        decided = [self._settle(trial) for trial in trials]
        return [trial for trial in decided if trial["state"] in FINAL]

    def put_back(self, training: str, reason: str) -> Row:
        """What was under way waits again and loses nothing: it goes on from its checkpoint."""
        self.ledger.finish_training(training, state=WAITING, reason=reason)
        self._left(training)
        return self.ledger.trainings(training=training)[0]

    def _left(self, training: str) -> None:
        self.running.discard(training)
        self.idle = False

    def machine_failed(self, training: str, reason: str) -> Row:
        """The machine, not the configuration, ended a training: it is tried again, so often in this start, then in
        the next ones; only after that does it count as FAILED."""
        self.lost[training] += 1
        self.barren |= self.given_up() & {training}
        losses = self.ledger.trainings(training=training)[0]["losses"] + 1
        self.ledger.finish_training(training, losses=losses)
        if losses < LOSSES:
            return self.put_back(training, f"machine: {reason}")
        self.done(training, None, f"machine: {reason}; {losses} times", epochs=0, seconds=None)
        return self.ledger.trainings(training=training)[0]

    def given_up(self) -> set[str]:
        """Trainings that this start does not try again."""
        return {training for training, times in self.lost.items() if times >= TRIES}

    def _open(self, arm: Arm) -> bool:
        """Whether an arm may still ask for new trials."""
        return len(self.halving[arm.name].trials) < arm.trials and self.costs.allows(arm.name)

    def _promote(self) -> bool:
        """A longer training for the trial that deserves it; False where none does."""
        for arm in self.plan.arms:
            found = self.halving[arm.name].promotion(more=self._open(arm))
            if found:
                self._queue_rung(arm, *found)
                return True
        return False

    def _queue_rung(self, arm: Arm, trial: Row, epochs: int) -> None:
        jobs = self.halving[arm.name].jobs(trial["words"], epochs)
        self.ledger.add_trainings(jobs)
        self.ledger.finish_trial(trial["trial"], state=WAITING, reason="")
        self._enter(arm, trial, jobs)

    def _enter(self, arm: Arm, trial: Row, jobs: list[Row]) -> None:
        """Count a trial's new trainings; they may all have ended already, asked for by another trial."""
        self.halving[arm.name].queued(trial, jobs)
        self.costs.expect(arm.name, jobs)
        for each in jobs:
            (row,) = self.ledger.trainings(training=each["training"])
            self.halving[arm.name].ended(trial, row)
        self._settle(trial)

    def _ask(self) -> bool:
        """One new trial for the arm that has asked for the fewest; False when every arm has its budget."""
        open_arms = [arm for arm in self.plan.arms if self._open(arm)]
        if not open_arms:
            return False
        arm = min(open_arms, key=lambda arm: len(self.halving[arm.name].trials))
        seen = self.halving[arm.name].seen()
        learnt = None if seen is None else [Seen(params, values) for params, values in seen]
        number, params = self.studies[arm.name].ask(learnt)
        self._add(arm, number, params)
        return True

    def _add(self, arm: Arm, number: int, params: Mapping[str, Any]) -> None:
        words = {**arm.words, **params}
        halving = self.halving[arm.name]
        jobs = halving.jobs(words, halving.rules.epochs[0])
        trial = {"trial": f"{arm.name}-{number:03d}", "arm": arm.name, "number": number}
        trial |= {"config": jobs[0]["config"], "words": words, "params": dict(params)}
        self.ledger.add_trial(trial, jobs)
        self._enter(arm, trial, jobs)

    def _settle(self, trial: Row) -> Row:
        """Close a trial whose trainings have all ended, and tell Optuna; the trial as it is then."""
        rows = self.ledger.trainings(config=trial["config"])
        found = [row for row in rows if row["stage"] == SEARCH and row["seed"] in self.plan.search_seeds]
        if not found:
            self._settle_rung(trial, rows)
        elif all(row["state"] in FINAL for row in found):
            self._settle_whole(trial, found, [row for row in rows if row["stage"] == RACE and row["state"] in FINAL])
        return self.ledger.trials(trial=trial["trial"])[0]

    def _settle_rung(self, trial: Row, rows: list[Row]) -> None:
        """A trial that has only been on rungs stands still, until it is promoted."""
        halving, study = self.halving[trial["arm"]], self.studies[trial["arm"]]
        found = halving.stopped(trial)
        if found is None:
            return
        reasons = sorted({row["reason"] for row in rows if row["stage"] == RUNG and row["reason"]})
        self.ledger.finish_trial(trial["trial"], **{"reason": "; ".join(reasons) or "nonfinite:objective", **found})
        if found["state"] == FAILED:
            study.tell(trial["number"], None)
        else:
            values, lacks = halving.shortfall(trial)
            study.tell(trial["number"], values, {BUDGET: lacks})

    def _settle_whole(self, trial: Row, rows: list[Row], race: list[Row]) -> None:
        raced = [row for row in race if row["state"] == COMPLETE]
        good = [row["metrics"] for row in rows if row["state"] == COMPLETE]
        whole = len(good) == len(rows)  # a mean over the seeds that survived would flatter
        missing = {
            f"nonfinite:{name}@{row['epochs']}"
            for name in self.plan.objectives
            for row in rows
            if row["state"] == COMPLETE and name not in row["metrics"]
        }
        reason = "; ".join(sorted({row["reason"] for row in rows if row["reason"]} | missing))
        means = _means([*good, *(row["metrics"] for row in raced)]) if whole and not missing else {}
        values = {name: means[name] for name in self.plan.objectives} if means else None
        broken = constraints.broken(self.plan.constraints, means) if means else ""
        lost = f"{len(race) - len(raced)} of {len(race)} more seeds failed" if len(raced) < len(race) else ""
        state = FAILED if values is None else INFEASIBLE if broken else COMPLETE
        said = "; ".join(filter(None, [reason, broken, lost]))
        self.ledger.finish_trial(trial["trial"], state=state, reason=said, objectives=values)
        self._tell(trial, values, constraints.violations(self.plan.constraints, means))

    def _tell(self, trial: Row, values: Mapping[str, float] | None, found: Mapping[str, float]) -> None:
        study, halving = self.studies[trial["arm"]], self.halving[trial["arm"]]
        if values is not None and halving.was_on_a_rung(trial):
            study.supersede(trial["number"], values, found)
        else:
            study.tell(trial["number"], values, {**found, **({BUDGET: 0.0} if halving.on else {})})

    def _race(self) -> bool:
        """One more seed for the contender whose place on its arm's front is least sure; False where all are."""
        if not self.plan.request.race:
            return False
        for arm in self.plan.arms:
            trials = self.ledger.trials(arm=arm.name)
            if self._searched(arm, trials) and (name := racing.next_contender(self._samples(arm, trials))):
                (trial,) = [trial for trial in trials if trial["trial"] == name]
                raced = self.ledger.trainings(config=trial["config"], stage=RACE)
                config = self.plan.config(trial["words"], RACE_SEEDS_FROM + len(raced))
                self.ledger.add_trainings([job(config, RACE)])
                return True
        return False

    def _samples(self, arm: Arm, trials: list[Row]) -> racing.Samples:
        """What the seeds of an arm's complete trials say."""
        return racing.samples(self.plan.objectives, trials, self.ledger.trainings(), JUDGED)

    def _searched(self, arm: Arm, trials: list[Row]) -> bool:
        return bool(trials) and not self._open(arm) and all(trial["state"] in FINAL for trial in trials)

    def _confirm(self) -> bool:
        """Queue the fresh seeds of every arm whose search has ended; False when that is done already."""
        before = len(self.ledger.trainings(stage=CONFIRM))
        racing_now = {row["config"] for row in self.ledger.trainings(stage=RACE) if row["state"] not in FINAL}
        for arm in self.plan.arms:
            trials = self.ledger.trials(arm=arm.name)
            chosen = choice(self.plan, trials)
            under_way = racing_now & {trial["config"] for trial in trials}
            if chosen and not under_way and self._searched(arm, trials):
                self.ledger.finish_trial(chosen["trial"], confirmed=True)
                configs = [self.plan.config(chosen["words"], seed, test=True) for seed in self.plan.confirm_seeds]
                self.ledger.add_trainings([job(config, CONFIRM) for config in configs])
        return len(self.ledger.trainings(stage=CONFIRM)) > before


def _means(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """Of every metric that all have."""
    names = set.intersection(*(set(row) for row in rows))
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}
