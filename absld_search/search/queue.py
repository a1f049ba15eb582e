"""What is trained next, and what a result means. Knows the ledger and Optuna; knows nothing of Ray."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from absld_search.search import costs, racing, reading
from absld_search.search.arm_study import ArmStudy, Seen
from absld_search.search.choices import choice
from absld_search.search.halving import CONFIRM, JUDGED, RACE, Halving, job
from absld_search.search.ledger import (
    BEGAN,
    COMPLETE,
    FAILED,
    FINAL,
    INFEASIBLE,
    RUNNING,
    STOPPED,
    TOOK,
    WAITING,
    Ledger,
    Row,
)
from absld_search.search.optuna_storage import open_storage
from absld_search.search.plan import Arm, Plan
from absld_search.search.settling import Settling
from absld_search.search.sharing import Sharing

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
            for epochs in plan.rungs(arm)[:-1]:
                ledger.fact(f"rung:{arm.name}:{epochs}", epochs)
        storage = open_storage(plan.request.storage)
        self.studies = {arm.name: ArmStudy(plan, arm, storage) for arm in plan.arms}
        self.halving = {arm.name: Halving(plan, arm) for arm in plan.arms}
        self.costs = costs.Costs(plan, ledger.facts(TOOK))
        self.sharing = Sharing(plan, ledger)
        self.settling = Settling(plan, ledger, self.studies, self.halving, self.sharing)
        self.running: dict[str, float] = {}  # training -> when it was handed out
        self.idle = False  # nothing was to be had, and nothing has ended since
        self.lost: Counter[str] = Counter()  # trainings that the machine ended in this start
        self.barren: set[str] = set()  # of these those given up since one completed
        self.settled: dict[str, int] = {}  # arm -> of how many trials its choice was made in this start
        self.paused = ""  # why nothing more is handed out
        self._recover()

    def _recover(self) -> None:
        """Put right what a killed driver left half done."""
        self.recall()
        if not self.plan.request.race:
            self.ledger.forget_waiting(RACE, [])
        self._read()
        for arm in self.plan.arms:
            known = {trial["number"]: trial for trial in self.ledger.trials(arm=arm.name)}
            unfinished, failed = set(self.studies[arm.name].running()), self.studies[arm.name].failed()
            untold = {trial["number"] for trial in known.values() if trial["state"] != FAILED} & failed
            for number in unfinished - set(known):  # asked for, but never written down: nobody waits for it
                self.studies[arm.name].drop(number)
            for trial in known.values():
                if (
                    trial["state"] not in FINAL
                    or trial["number"] in unfinished | untold
                    or self._may_be_told_twice(trial)
                ):
                    self.settling.settle(trial)
        self._forget()

    def recall(self) -> None:
        """What is RUNNING, and has nobody who trains it any more, waits again; what its attempt has cost is kept."""
        for row in self.ledger.trainings(state=RUNNING):
            training = row["training"]
            if training in self.running:
                seconds = self._spent(row)
            else:  # a killed driver's: it ran until its last epoch at least
                heard = reading.last_heard(self.plan.folder / "trainings" / training)
                seconds = self._spent(row, max(0.0, heard - (self.ledger.known(f"{BEGAN}{training}") or heard)))
            self.ledger.finish_training(training, state=WAITING, seconds=seconds or row["seconds"])

    def _forget(self) -> None:
        """Take waiting confirm trainings off the queue that are not asked for now: of a seed too many, or of an arm
        whose search goes on, for it may choose another configuration."""
        searched = [arm.name for arm in self.plan.arms if self._searched(arm)]
        chosen = [choice(self.plan, self.ledger.trials(arm=name)) for name in searched]
        keep = [
            self.plan.config(each["words"], seed).key for each in chosen if each for seed in self.plan.confirm_seeds
        ]
        self.ledger.forget_waiting(CONFIRM, keep)

    def _read(self) -> None:
        """Rungs and costs as the ledger has them."""
        trials = {trial["trial"]: trial for trial in self.ledger.trials()}
        for trial in trials.values():
            self.sharing.add(trial)
        for row in self.ledger.trainings():
            for name in self.sharing.of(row) if row["stage"] != CONFIRM else ():
                self._know(trials[name], row)

    def _know(self, trial: Row, row: Row) -> None:
        self.halving[trial["arm"]].know(trial, row)
        self.costs.know(trial["arm"], row)

    def _may_be_told_twice(self, trial: Row) -> bool:
        """Optuna may know only how it stood before: a kill can come between the ledger's word and the next telling."""
        return trial["state"] in (COMPLETE, INFEASIBLE, STOPPED) and self.halving[trial["arm"]].was_promoted(trial)

    def take(self) -> Row | None:
        """The next training, now RUNNING. None: nothing to do until something that runs has ended."""
        if self.idle and self.running:
            return None  # Tune asks again and again, and each look reads every trial there is
        row = None if self.paused else self._next()
        self.idle = row is None
        if row is not None:
            self.running[row["training"]] = time.monotonic()
        return row

    def _next(self) -> Row | None:
        """What waits, or what is asked for where nothing does; now RUNNING."""
        while (row := self.ledger.take(leave=self.given_up())) is None and self._more():
            pass
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
        (row,) = self.ledger.trainings(training=training)
        facts["seconds"] = self._spent(row, facts.get("seconds"))
        ended = {"state": state, "reason": reason, "metrics": metrics, **facts}
        self.ledger.finish_training(training, **ended)
        if self.plan.request.reuse and (took := self.ledger.known(f"{TOOK}{training}")) is not None:
            self.costs.took[training] = took
        self._left(training)
        if row["stage"] == CONFIRM:
            return []
        return [trial for trial in self._enter([{**row, **ended}]) if trial["state"] in FINAL]

    def put_back(self, training: str, reason: str) -> Row:
        """What was under way waits again and loses nothing: it goes on from its checkpoint."""
        (row,) = self.ledger.trainings(training=training)
        changed = {"state": WAITING, "reason": reason, "seconds": self._spent(row)}
        self.ledger.finish_training(training, **changed)
        self._left(training)
        return {**row, **changed}

    def _spent(self, row: Row, last: float | None = None) -> float:
        """Seconds of all attempts of a training; `last`: of the one that ends now, where it is known."""
        began = self.running.get(row["training"])
        taken = 0.0 if began is None else time.monotonic() - began
        return (row["seconds"] or 0.0) + (taken if last is None else last)

    def _left(self, training: str) -> None:
        self.running.pop(training, None)
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
        self.done(training, None, f"machine: {reason}; {losses} times", epochs=0)
        return self.ledger.trainings(training=training)[0]

    def given_up(self) -> set[str]:
        """Trainings that this start does not try again."""
        return {training for training, times in self.lost.items() if times >= TRIES}

    def _open(self, arm: Arm) -> bool:
        """Whether an arm may still ask for new trials."""
        return len(self.halving[arm.name].trials) < arm.trials and self.costs.allows(arm.name)

    def asks(self) -> bool:
        """Whether a sampler is still to be asked: for trials beyond the points that were given beforehand."""
        return any(self._open(arm) and arm.trials > len(arm.first) for arm in self.plan.arms if arm.tuned)

    def _promote(self) -> bool:
        """A longer training for the trial that deserves it; False where none does, or the hours are spent: an arm
        without any whole training gets one all the same, for without it there is nothing to compare."""
        for arm in self.plan.arms:
            halving = self.halving[arm.name]
            if halving.whole and not self.costs.allows(arm.name):
                continue
            found = halving.promotion(more=self._open(arm))
            if found:
                self._queue_rung(arm, *found)
                return True
        return False

    def _queue_rung(self, arm: Arm, trial: Row, epochs: int) -> None:
        jobs = self.halving[arm.name].jobs(trial["words"], epochs)
        self.ledger.add_trainings(jobs)
        self._enter([row for each in jobs for row in self.ledger.trainings(training=each["training"])])

    def _enter(self, rows: list[Row]) -> list[Row]:
        """Trainings that are new or have ended, perhaps long ago and asked for by another trial: what that means for
        every trial that has them; the trials as they are then."""
        names = dict.fromkeys(name for row in rows for name in self.sharing.of(row))
        trials = [self.ledger.trials(trial=name)[0] for name in names]
        for trial in trials:
            for row in rows:
                if trial["trial"] in self.sharing.of(row):
                    self._know(trial, row)
            if trial["state"] == STOPPED and self.halving[trial["arm"]].stopped(trial) is None:
                trial |= {"state": WAITING, "reason": ""}
                self.ledger.finish_trial(trial["trial"], state=WAITING, reason="")
        return [self.settling.settle(trial) for trial in trials]

    def _ask(self) -> bool:
        """One new trial for the arm that has asked for the fewest; False when every arm has its budget."""
        open_arms = [arm for arm in self.plan.arms if self._open(arm)]
        if not open_arms:
            return False
        arm = min(open_arms, key=lambda arm: len(self.halving[arm.name].trials))
        seen = self.halving[arm.name].seen()
        learnt = None if seen is None else [Seen(*each) for each in seen]
        number, params = self.studies[arm.name].ask(learnt)
        self._add(arm, number, params)
        return True

    def _add(self, arm: Arm, number: int, params: Mapping[str, Any]) -> None:
        words = {**arm.words, **params}
        halving = self.halving[arm.name]
        jobs = halving.jobs(words, halving.rules.epochs[0])
        trial = {"trial": f"{arm.name}-{number:03d}", "arm": arm.name, "number": number, "state": WAITING}
        trial |= {"config": jobs[0]["config"], "words": words, "params": dict(params)}
        self.ledger.add_trial(trial, jobs)
        self.sharing.add(trial)
        rows = self.settling.rows(trial)
        for row in rows:
            self._know(trial, row)
        if any(row["state"] in FINAL or len(self.sharing.of(row)) > 1 for row in rows):
            self._enter(rows)  # another trial's training: it may have ended already, or be a longer one for that trial

    def _race(self) -> bool:
        """One more seed for the contender whose place on its arm's front is least sure; False where all are, or the
        hours are spent."""
        if not self.plan.request.race:
            return False
        for arm in filter(lambda arm: self.costs.allows(arm.name) and self._searched(arm), self.plan.arms):
            trials = self.ledger.trials(arm=arm.name)
            if name := racing.next_contender(self._samples(arm, trials)):
                (trial,) = [trial for trial in trials if trial["trial"] == name]
                raced = self.ledger.trainings(config=trial["config"], stage=RACE)
                config = self.plan.config(trial["words"], RACE_SEEDS_FROM + len(raced))
                self.ledger.add_trainings([job(config, RACE)])
                self._enter(self.ledger.trainings(training=config.key))
                self.settled.clear()  # another arm may have this configuration too
                return True
        return False

    def _samples(self, arm: Arm, trials: list[Row]) -> racing.Samples:
        """What the seeds of an arm's complete trials say."""
        return racing.samples(self.plan.objectives, trials, self.ledger.trainings(), JUDGED)

    def _searched(self, arm: Arm) -> bool:
        asked = bool(self.halving[arm.name].trials)
        return asked and not self._open(arm) and not self.ledger.unfinished(arm.name)

    def _confirm(self) -> bool:
        """Queue the fresh seeds of every arm whose search has ended; False when that is done already."""
        before = len(self.ledger.trainings(stage=CONFIRM))
        racing_now = {row["config"] for row in self.ledger.trainings(stage=RACE) if row["state"] not in FINAL}
        searched = [arm for arm in self.plan.arms if self._searched(arm)]
        if self.plan.stopping != "none" and len(searched) < len(self.plan.arms):
            return False  # a rung that arms share can still move a choice
        for arm in searched:
            if self.settled.get(arm.name) == len(self.halving[arm.name].trials):
                continue  # nothing has come since, and to look again would read every trial
            trials = self.ledger.trials(arm=arm.name)
            if racing_now & {trial["config"] for trial in trials}:
                continue
            self.settling.race_over(arm.name, trials)
            if chosen := choice(self.plan, trials):
                self.settled[arm.name] = len(trials)
                self.ledger.finish_trial(chosen["trial"], confirmed=True)
                configs = [self.plan.config(chosen["words"], seed, test=True) for seed in self.plan.confirm_seeds]
                self.ledger.add_trainings([job(config, CONFIRM) for config in configs])
        return len(self.ledger.trainings(stage=CONFIRM)) > before
