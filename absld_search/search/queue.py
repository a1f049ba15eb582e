"""What is trained next, and what a result means. Knows the ledger and Optuna; knows nothing of Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from absld_search.search import fronts
from absld_search.search.arm_study import ArmStudy
from absld_search.search.ledger import COMPLETE, FAILED, WAITING, Ledger, Row
from absld_search.search.optuna_storage import open_storage
from absld_search.search.plan import Arm, Plan

FINAL = (COMPLETE, FAILED)
SEARCH, CONFIRM = "search", "confirm"
TRIES, LOSSES = 3, 9  # of a training that the machine ends: in one start, and in all before it counts as FAILED


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
        self.running: set[str] = set()
        self.lost: Counter[str] = Counter()  # trainings that the machine ended in this start
        self.paused = ""  # why nothing more is handed out
        self._recover()

    def _recover(self) -> None:
        """Put right what a killed driver left half done."""
        self.ledger.requeue()
        self.ledger.forget_waiting(CONFIRM, self.plan.confirm_seeds)
        for arm in self.plan.arms:
            known = {trial["number"]: trial for trial in self.ledger.trials(arm=arm.name)}
            for number in self.studies[arm.name].running():
                if number not in known:  # asked for, but never written down: nobody waits for it
                    self.studies[arm.name].drop(number)
            for trial in known.values():
                self._settle(trial)

    def take(self) -> Row | None:
        """The next training, now RUNNING. None: nothing to do until something that runs has ended."""
        row = self.ledger.take(leave=self.given_up()) if not self.paused and self.ready() else None
        if row is not None:
            self.running.add(row["training"])
        return row

    def ready(self) -> bool:
        """Whether a training waits, after asking for new ones where none does."""
        while {row["training"] for row in self.ledger.trainings(state=WAITING)} <= self.given_up():
            if not (self._ask() or self._confirm()):
                return False
        return True

    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to do. Call after `take` has given None."""
        return not self.running

    def done(self, training: str, metrics: Mapping[str, float] | None, reason: str, **facts: Any) -> list[Row]:
        """Write down how a training ended; the trials that this decides."""
        bad = [name for name, value in (metrics or {}).items() if not math.isfinite(value)]
        if bad:  # the last gate before the ledger, Optuna and the fronts
            metrics, reason = None, f"nonfinite:metric-{bad[0]}@{facts.get('epochs', 0)}"
        state = FAILED if metrics is None else COMPLETE
        self.ledger.finish_training(training, state=state, reason=reason, metrics=metrics, **facts)
        self.running.discard(training)
        (row,) = self.ledger.trainings(training=training)
        if row["stage"] != SEARCH:
            return []
        decided = [self._settle(trial) for trial in self.ledger.trials(config=row["config"])]
        return [trial for trial in decided if trial["state"] in FINAL]

    def put_back(self, training: str, reason: str) -> Row:
        """What was under way waits again and loses nothing: it goes on from its checkpoint."""
        self.ledger.finish_training(training, state=WAITING, reason=reason)
        self.running.discard(training)
        return self.ledger.trainings(training=training)[0]

    def machine_failed(self, training: str, reason: str) -> Row:
        """The machine, not the configuration, ended a training: it is tried again, so often in this start, then in
        the next ones; only after that does it count as FAILED."""
        self.lost[training] += 1
        losses = self.ledger.trainings(training=training)[0]["losses"] + 1
        self.ledger.finish_training(training, losses=losses)
        if losses < LOSSES:
            return self.put_back(training, f"machine: {reason}")
        self.done(training, None, f"machine: {reason}; {losses} times", epochs=0, seconds=None)
        return self.ledger.trainings(training=training)[0]

    def given_up(self) -> set[str]:
        """Trainings that this start does not try again."""
        return {training for training, times in self.lost.items() if times >= TRIES}

    def _ask(self) -> bool:
        """One new trial for the arm that has asked for the fewest; False when every arm has its budget."""
        counts = {arm.name: len(self.ledger.trials(arm=arm.name)) for arm in self.plan.arms}
        open_arms = [arm for arm in self.plan.arms if counts[arm.name] < arm.trials]
        if not open_arms:
            return False
        arm = min(open_arms, key=lambda arm: counts[arm.name])
        number, params = self.studies[arm.name].ask()
        self._add(arm, number, params)
        return True

    def _add(self, arm: Arm, number: int, params: Mapping[str, Any]) -> None:
        words = {**arm.words, **params}
        configs = [self.plan.config(words, seed) for seed in self.plan.search_seeds]
        trial = {"trial": f"{arm.name}-{number:03d}", "arm": arm.name, "number": number}
        trial |= {"config": configs[0].hash, "words": words, "params": dict(params)}
        self.ledger.add_trial(trial, [_job(config, SEARCH) for config in configs])
        self._settle(trial)  # its trainings may all be there already, from another trial

    def _settle(self, trial: Row) -> Row:
        """Close a trial whose trainings have all ended, and tell Optuna; the trial as it is then."""
        rows = self.ledger.trainings(config=trial["config"], stage=SEARCH)
        rows = [row for row in rows if row["seed"] in self.plan.search_seeds]
        if not rows or any(row["state"] not in FINAL for row in rows):
            return self.ledger.trials(trial=trial["trial"])[0]
        good = [row["metrics"] for row in rows if row["state"] == COMPLETE]
        whole = len(good) == len(rows)  # a mean over the seeds that survived would flatter
        missing = {
            f"nonfinite:{name}@{row['epochs']}"
            for name in self.plan.objectives
            for row in rows
            if row["state"] == COMPLETE and name not in row["metrics"]
        }
        reason = "; ".join(sorted({row["reason"] for row in rows if row["reason"]} | missing))
        usable = whole and not missing
        values = {name: sum(m[name] for m in good) / len(good) for name in self.plan.objectives} if usable else None
        state = COMPLETE if usable else FAILED
        self.ledger.finish_trial(trial["trial"], state=state, reason=reason, objectives=values)
        self.studies[trial["arm"]].tell(trial["number"], values)
        return self.ledger.trials(trial=trial["trial"])[0]

    def _confirm(self) -> bool:
        """Queue the fresh seeds of every arm whose search has ended; False when that is done already."""
        before = len(self.ledger.trainings(stage=CONFIRM))
        for arm in self.plan.arms:
            trials = self.ledger.trials(arm=arm.name)
            chosen = choice(self.plan, trials)
            if chosen and len(trials) >= arm.trials and all(trial["state"] in FINAL for trial in trials):
                self.ledger.finish_trial(chosen["trial"], confirmed=True)
                configs = [self.plan.config(chosen["words"], seed, test=True) for seed in self.plan.confirm_seeds]
                self.ledger.add_trainings([_job(config, CONFIRM) for config in configs])
        return len(self.ledger.trainings(stage=CONFIRM)) > before


def choice(plan: Plan, trials: list[Row]) -> Row | None:
    """An arm's choice: the knee of its own front on val; None where no trial is complete."""
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    if not complete:
        return None
    return complete[fronts.knee(values_of(plan, complete), list(plan.objectives.values()))]


def values_of(plan: Plan, trials: list[Row]) -> list[list[float]]:
    """The objectives of complete trials, (N, k)."""
    return [[trial["objectives"][name] for name in plan.objectives] for trial in trials]


def front_trials(plan: Plan, trials: list[Row]) -> tuple[set[str], set[str]]:
    """Names of the trials on the joint front of all arms, and of those on their own arm's."""
    arms = {arm.name: [t for t in trials if t["arm"] == arm.name] for arm in plan.arms}
    return _front(plan, trials), set().union(*(_front(plan, rows) for rows in arms.values()))


def chosen_trials(plan: Plan, trials: list[Row]) -> set[str]:
    """Names of the arms' choices."""
    arms = [[trial for trial in trials if trial["arm"] == arm.name] for arm in plan.arms]
    return {found["trial"] for found in (choice(plan, rows) for rows in arms) if found}


def _front(plan: Plan, trials: list[Row]) -> set[str]:
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    if not complete:
        return set()
    mask = fronts.non_dominated(values_of(plan, complete), list(plan.objectives.values()))
    return {trial["trial"] for trial, on in zip(complete, mask, strict=True) if on}


def _job(config: Any, stage: str) -> Row:
    facts = {"training": config.key, "config": config.hash, "seed": config.seed, "stage": stage}
    return {**facts, "job": config.to_dict(), "attempts": 0, "epochs": 0}
