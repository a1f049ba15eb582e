"""One arm's Optuna study: ask for a configuration, tell what it was worth.

A trial that was not trained to the end is told with the constraint `budget`, the share of the epochs that it lacks:
infeasible, so that it is on no front, neither Optuna's nor its dashboard's.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from absld_search.core import faults
from absld_search.search import costs, reaping, samplers
from absld_search.search.plan import Arm, Plan
from absld_search.space import Choice, Distribution, LogUniform, Value, holds

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Named objectives and grouped sampling are "experimental" in Optuna 5; the version is pinned, so nobody need read it.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
BUDGET, SUPERSEDES = "budget", "supersedes"


class Seen(NamedTuple):
    """A configuration for the sampler to learn from: its parameters, its values or None while it runs, and how far
    each constraint is on the wrong side."""

    params: Mapping[str, Value]
    values: tuple[float, ...] | None
    violations: Mapping[str, float] = {}


class ArmStudy:
    """The Optuna study of one arm; `optuna-dashboard` on the same database shows it as `<study>.<arm>`."""

    def __init__(self, plan: Plan, arm: Arm, storage: optuna.storages.BaseStorage, seed: int = 0) -> None:
        self.arm, self.sampler, self.seed = arm, plan.sampler, seed
        self.expected = costs.expected(plan, arm)
        self.live: dict[int, Trial] = {}  # asked for in this start, and not told yet
        self.begun: int | None = None  # proposals that count; None: to be counted, which reads every trial
        self.waiting = True  # whether a point that was given may wait; to see that none does reads every trial too
        self.metric_names = list(plan.objectives)
        self.directions = ["maximize" if way == "max" else "minimize" for way in plan.objectives.values()]
        name = f"{plan.request.study}.{arm.name}"
        self.study = optuna.create_study(
            storage=storage, study_name=name, directions=self.directions, load_if_exists=True
        )
        self.study.set_metric_names(list(plan.objectives))
        for point in arm.first:
            self.study.enqueue_trial(point, skip_if_exists=True)

    def _fresh(self) -> optuna.samplers.BaseSampler:
        """A sampler for one proposal. One that lived on would have a state that a killed driver takes with it; this
        one's is the study, and how many trials it has."""
        if self.begun is None:
            trials = self._trials(TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL)
            self.begun = sum(not trial.user_attrs.keys() & {SUPERSEDES, reaping.DROPPED} for trial in trials)
        return samplers.make(self.sampler, setting(self.arm, self.seed, self.begun, self.expected))

    def ask(self, seen: Sequence[Seen] | None = None) -> tuple[int, dict[str, Value]]:
        """A new trial: its number, and the sampled parameters; learnt from `seen` instead of the study, if given."""
        self.waiting = self.waiting and bool(self._trials(TrialState.WAITING))
        if seen is not None and samplers.SAMPLERS[self.sampler].models and not self.waiting:
            self.study.enqueue_trial(self._proposal(seen))
            self.waiting = True
        self.study.sampler, nth, self.begun = self._fresh(), self.begun, None
        trial = self.study.ask() if self.waiting else self._created()
        faults.at("optuna.after_ask")
        self.begun = (nth or 0) + 1
        self.live[trial.number] = trial
        if samplers.SAMPLERS[self.sampler].generation:
            trial.relative_params  # noqa: B018 - puts a point that was given into a generation too
        return trial.number, self._sampled(trial)

    def _created(self) -> Trial:
        """What `Study.ask` does where nothing waits, without its look through all trials for one that does."""
        self.study._thread_local.cached_all_trials = None
        return Trial(self.study, self.study._storage.create_new_trial(self.study._study_id))

    def _proposal(self, seen: Sequence[Seen]) -> dict[str, Value]:
        """What the sampler says to a study of `seen` alone."""
        view = optuna.create_study(directions=self.directions, sampler=self._fresh())
        for params, values, violations in seen:
            spaces = {name: _distribution(self.arm.tuned[name]) for name in params}
            state = TrialState.RUNNING if values is None else TrialState.COMPLETE
            told = {"params": dict(params), "distributions": spaces, "constraints": dict(violations)}
            view.add_trial(create_trial(state=state, values=values, **told))
        return self._sampled(view.ask())

    def _sampled(self, trial: Trial) -> dict[str, Value]:
        words, params = dict(self.arm.words), dict[str, Value]()
        for name, how in self.arm.tuned.items():
            if holds(how, words):
                words[name] = params[name] = _suggest(trial, name, how)
        return params

    def tell(
        self, number: int, values: Mapping[str, float] | None, violations: Mapping[str, float] | None = None
    ) -> None:
        """The objectives' values, or None: it failed. Nothing non-finite passes; telling twice is harmless.

        A trial with a violation above 0 is infeasible: Optuna's samplers shun it, its front is without it.
        """
        live = self.live.pop(number, None)
        trial = live or self._again(number)
        if trial is None:
            return self._revive(number, values, violations or {})
        faults.at("optuna.before_tell")
        if values is None or not all(math.isfinite(value) for value in values.values()):
            return self._close(trial, TrialState.FAIL)
        known = {} if live or not violations else trial.storage.get_trial(trial._trial_id).constraints
        for name, violation in (violations or {}).items():
            if name not in known:
                trial.set_constraint(name, violation)
        self._close(trial, TrialState.COMPLETE, self._ordered(values))

    def _revive(self, number: int, values: Mapping[str, float] | None, violations: Mapping[str, float]) -> None:
        """A trial that was told to have failed, and has been trained anew since."""
        told = self._told(number)
        finite = values is not None and all(map(math.isfinite, values.values()))
        if values is not None and finite and all(trial.state == TrialState.FAIL for trial in told):
            self._tell_again(told[0], values, violations)

    @staticmethod
    def _close(trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        """What `Study.tell` does in the end. It looks the trial up three times more, a third of what a trial costs; and
        it calls its sampler, whose state no proposal here depends on."""
        trial.storage.set_trial_state_values(trial._trial_id, state, values)

    def _again(self, number: int) -> Trial | None:
        """A trial that another start asked for; None where it has been told. Reads all: not for every trial."""
        frozen = self._trials()[number]
        return None if frozen.state.is_finished() else Trial(self.study, frozen._trial_id)

    def supersede(self, number: int, values: Mapping[str, float], violations: Mapping[str, float]) -> None:
        """What a trial was worth after more epochs than it had when it was told: a new Optuna trial, since a told one
        can't change. `violations[BUDGET]` is the share that it still lacks; what is told already is not told again."""
        lacks = violations.get(BUDGET, 0.0)
        if number in self.live:  # not told yet: nothing to look up, and to look reads all there is
            return self.tell(number, values, {**violations, BUDGET: lacks})
        told = self._told(number)
        if not told[0].state.is_finished():  # another arm's training decided it before it was told anything
            self.tell(number, values, {**violations, BUDGET: lacks})
        elif all(trial.state == TrialState.FAIL or trial.constraints.get(BUDGET, 0.0) > lacks for trial in told):
            self._tell_again(told[0], values, {**violations, BUDGET: lacks})

    def correct(self, number: int, values: Mapping[str, float], violations: Mapping[str, float]) -> None:
        """What more seeds have made of a trial's values, in the same way, where they differ from what was told last."""
        last = self._told(number)[-1]
        new = dict(last.constraints) | dict(violations)
        if last.values is not None and (last.values, last.constraints) != (self._ordered(values), new):
            self._tell_again(last, values, new)

    def _told(self, number: int) -> list[FrozenTrial]:
        """A trial, and those that superseded it."""
        trials = self._trials()
        return [trials[number], *(trial for trial in trials if trial.user_attrs.get(SUPERSEDES) == number)]

    def _tell_again(self, told: FrozenTrial, values: Mapping[str, float], violations: Mapping[str, float]) -> None:
        number = told.user_attrs.get(SUPERSEDES, told.number)
        kept = {"params": told.params, "distributions": told.distributions, "user_attrs": {SUPERSEDES: number}}
        faults.at("optuna.before_tell")
        again = {"values": self._ordered(values), "constraints": dict(violations), "system_attrs": self._generation()}
        self.study.add_trial(create_trial(**again, **kept))

    def _generation(self) -> dict[str, int]:
        """For genetic samplers: the newest generation, for the parents of the next are chosen from it and from its own
        parents; that of the trial itself may long have been passed over."""
        key = samplers.SAMPLERS[self.sampler].generation
        return {key: max((t.system_attrs.get(key, 0) for t in self._trials()), default=0)} if key else {}

    def _ordered(self, values: Mapping[str, float]) -> list[float]:
        return [values[name] for name in self.metric_names]

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def drop(self, number: int) -> None:
        """Forget a trial that nobody wrote down; what it was to try is tried again, so no point is lost."""
        reaping.drop(self.study, number)
        self.begun, self.waiting = None, True

    def failed(self) -> set[int]:
        """Numbers of the trials of which Optuna has heard nothing but that they failed."""
        trials = self._trials()
        superseded = {trial.user_attrs.get(SUPERSEDES) for trial in trials}
        return {trial.number for trial in trials if trial.state == TrialState.FAIL} - superseded

    def running(self) -> list[int]:
        """Numbers of the trials that Optuna believes are under way."""
        return [trial.number for trial in self._trials(TrialState.RUNNING)]


def setting(arm: Arm, seed: int, nth: int, trials: int) -> samplers.Setting:
    """What an arm's sampler is made for. Arms of one study draw apart from each other."""
    own = zlib.crc32(f"{seed}.{arm.name}".encode())
    return samplers.Setting(own, any(how.when for how in arm.tuned.values()), trials, nth, len(arm.first))


def _suggest(trial: Trial, name: str, how: Distribution) -> Value:
    if isinstance(how, Choice):
        return trial.suggest_categorical(name, list(how.options))
    return trial.suggest_float(name, how.low, how.high, log=isinstance(how, LogUniform))  # type: ignore[union-attr]


def _distribution(how: Distribution) -> BaseDistribution:
    if isinstance(how, Choice):
        return CategoricalDistribution(list(how.options))
    return FloatDistribution(how.low, how.high, log=isinstance(how, LogUniform))  # type: ignore[union-attr]
