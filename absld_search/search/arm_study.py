"""One arm's Optuna study: ask for a configuration, tell what it was worth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from absld_search.core import faults
from absld_search.search import reaping
from absld_search.search.plan import Arm, Plan
from absld_search.space import Choice, Distribution, LogUniform, Value, holds

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Named objectives and grouped sampling are "experimental" in Optuna 5; the version is pinned, so nobody need read it.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
STARTUP = 4  # random configurations before the model speaks; with Optuna's 10 a budget of 8 is random search
SAMPLERS: dict[str, Callable[[int, bool], BaseSampler]] = {
    "tpe": lambda seed, group: TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, group=group),
    "gp": lambda seed, group: GPSampler(seed=seed, n_startup_trials=STARTUP),
    "nsga2": lambda seed, group: NSGAIISampler(seed=seed, population_size=STARTUP),
    "random": lambda seed, group: RandomSampler(seed=seed),
}


class ArmStudy:
    """The Optuna study of one arm; `optuna-dashboard` on the same database shows it as `<study>.<arm>`."""

    def __init__(self, plan: Plan, arm: Arm, storage: optuna.storages.BaseStorage) -> None:
        self.arm, self.live = arm, dict[int, Trial]()
        directions = ["maximize" if way == "max" else "minimize" for way in plan.objectives.values()]
        name = f"{plan.request.study}.{arm.name}"
        self.study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        self.study.set_metric_names(list(plan.objectives))
        # A resumed sampler must not repeat its first draws: its seed depends on how far the study is.
        seed = _seed(arm.name) + len(self.study.get_trials(deepcopy=False))
        conditional = any(how.when for how in arm.tuned.values())
        self.study.sampler = SAMPLERS[plan.sampler](seed, conditional)
        for point in arm.first:
            self.study.enqueue_trial(point, skip_if_exists=True)

    def ask(self) -> tuple[int, dict[str, Value]]:
        """A new trial: its number, and the sampled parameters."""
        trial = self.study.ask()
        faults.at("optuna.after_ask")
        words, params = dict(self.arm.words), dict[str, Value]()
        for name, how in self.arm.tuned.items():
            if holds(how, words):
                words[name] = params[name] = _suggest(trial, name, how)
        return trial.number, params

    def tell(self, number: int, values: Mapping[str, float] | None) -> None:
        """The objectives' values, or None: it failed. Nothing non-finite passes; telling twice is harmless."""
        if self.study.get_trials(deepcopy=False)[number].state.is_finished():
            return
        faults.at("optuna.before_tell")
        if values is None or not all(math.isfinite(value) for value in values.values()):
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, [values[name] for name in self.study.metric_names or ()])

    def drop(self, number: int) -> None:
        """Forget a trial that nobody wrote down; what it was to try is tried again, so no point is lost."""
        reaping.drop(self.study, number)

    def running(self) -> list[int]:
        """Numbers of the trials that Optuna believes are under way."""
        states = (TrialState.RUNNING,)
        return [trial.number for trial in self.study.get_trials(deepcopy=False, states=states)]


def _suggest(trial: Trial, name: str, how: Distribution) -> Value:
    if isinstance(how, Choice):
        return trial.suggest_categorical(name, list(how.options))
    return trial.suggest_float(name, how.low, how.high, log=isinstance(how, LogUniform))  # type: ignore[union-attr]


def _seed(name: str) -> int:
    return int.from_bytes(name.encode()[:3], "big")
