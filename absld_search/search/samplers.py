"""Samplers by name: what each is good for, what it needs, and what it can't do with a small budget.

The names are read by the plan, long before Optuna is; so Optuna is imported where a sampler is made.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from absld_search.words import UsageError, require_known

STARTUP = 4  # random configurations before a model speaks; with Optuna's 10 a budget of 8 is random search
SMALLEST_POPULATION, LARGEST_POPULATION = 4, 50  # Optuna's own is 50: with fewer trials all of it is random


@dataclass(frozen=True)
class Setting:
    """What a sampler is made for: one proposal, so that a proposal is a function of the study and of its number."""

    seed: int  # of the arm: the same for all of its proposals
    conditional: bool = False  # some parameter exists only under a choice
    trials: int = 8  # of the arm
    nth: int = 0  # the proposal's number in the arm
    known: int = 0  # points that are tried first, which no sampler proposes

    @property
    def draw(self) -> int:
        """The seed of this proposal alone."""
        return zlib.crc32(f"{self.seed}.{self.nth}".encode())

    @property
    def population(self) -> int:
        """A genetic sampler's: five generations, where the budget allows it."""
        return min(max(self.trials // 5, SMALLEST_POPULATION), LARGEST_POPULATION)


@dataclass(frozen=True)
class Sampler:
    """A sampler's factory, and what has to be said about it."""

    make: Callable[[Setting], Any]  # an optuna.samplers.BaseSampler
    least: Callable[[Setting], int]  # trials from which it does more than draw at random
    conditional: bool = True  # whether it models parameters that exist only sometimes
    models: bool = False  # learns from values alone, so that it can be shown one rung of a study
    generation: str = ""  # where a genetic sampler notes a trial's generation: one without it is nobody's parent


def _tpe(setting: Setting) -> Any:
    """Tree-structured Parzen estimator (Ozaki et al., JAIR 2022, for several objectives)."""
    from optuna.samplers import TPESampler

    group = setting.conditional
    return TPESampler(seed=setting.draw, n_startup_trials=STARTUP, multivariate=True, group=group)


def _gp(setting: Setting) -> Any:
    """Gaussian processes that estimate the noise; expected hypervolume improvement for several objectives."""
    from optuna.samplers import GPSampler

    return GPSampler(
        seed=setting.draw, n_startup_trials=STARTUP, deterministic_objective=False, warn_independent_sampling=False
    )


def _nsga2(setting: Setting) -> Any:
    """Deb et al., IEEE TEC 2002."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=setting.draw, population_size=setting.population)


def _nsga3(setting: Setting) -> Any:
    """Deb and Jain, IEEE TEC 2014: for more objectives than two or three."""
    from optuna.samplers import NSGAIIISampler

    return NSGAIIISampler(seed=setting.draw, population_size=setting.population)


def _qmc(setting: Setting) -> Any:
    """Scrambled Sobol points: they learn nothing, but cover the space more evenly than random ones.

    Optuna counts its points in the study, a point that a killed driver asked for and never wrote down too; counted here
    are the arm's trials, so that none is left out.
    """
    from optuna.samplers import QMCSampler, RandomSampler

    class Sobol(QMCSampler):
        def _find_sample_id(self, *_: Any) -> int:
            return max(0, setting.nth - setting.known)

    logging.getLogger("optuna.samplers._qmc").setLevel(logging.ERROR)  # `advice` says it once, not once a parameter

    words = {"warn_asynchronous_seeding": False, "warn_independent_sampling": False}
    return Sobol(seed=setting.seed, scramble=True, independent_sampler=RandomSampler(seed=setting.draw), **words)


def _random(setting: Setting) -> Any:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=setting.draw)


def _botorch(setting: Setting) -> Any:
    """Noisy expected hypervolume improvement (Daulton et al., arXiv:2105.08195), through optuna-integration."""
    import torch
    from optuna_integration import BoTorchSampler
    from optuna_integration.botorch import qnehvi_candidates_func

    with torch.random.fork_rng():
        return BoTorchSampler(candidates_func=qnehvi_candidates_func, n_startup_trials=STARTUP, seed=setting.draw)


SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler(_tpe, lambda _: STARTUP + 1, models=True),
    "gp": Sampler(_gp, lambda _: STARTUP + 1, conditional=False, models=True),
    "nsga2": Sampler(_nsga2, lambda setting: 2 * setting.population, generation="NSGAIISampler:generation"),
    "nsga3": Sampler(_nsga3, lambda setting: 2 * setting.population, generation="NSGAIIISampler:generation"),
    "qmc": Sampler(_qmc, lambda _: 1, conditional=False),
    "random": Sampler(_random, lambda _: 1),
    "botorch": Sampler(_botorch, lambda _: STARTUP + 1, conditional=False, models=True),
}
EXTRAS = {"botorch": "optuna_integration"}  # a sampler -> what `pip install .[<its name>]` brings


def require(name: str) -> str:
    """`name`, where such a sampler can be made here. Raises: UsageError naming the nearest, or the missing extra."""
    require_known("sampler", name, SAMPLERS)
    if name in EXTRAS and not _installed(EXTRAS[name]):
        raise UsageError(f"sampler {name!r} needs the extra of that name: pip install '.[{name}]'.")
    return name


def _installed(package: str) -> bool:
    # A package that puts another object into its place, as optuna_integration does, can't be looked up any more.
    return package in sys.modules or importlib.util.find_spec(package) is not None


def make(name: str, setting: Setting) -> Any:
    """The sampler, an `optuna.samplers.BaseSampler`."""
    return SAMPLERS[name].make(setting)


def advice(name: str, setting: Setting) -> list[str]:
    """What the person should know before they wait for this sampler with this budget; often nothing."""
    sampler, lines = SAMPLERS[name], []
    least = sampler.least(setting)
    if setting.trials < least:
        lines.append(
            f"sampler {name} draws at random with {setting.trials} trials an arm: it begins to learn at {least}"
        )
    if setting.conditional and not sampler.conditional:
        lines.append(f"sampler {name} draws parameters that exist only under a choice at random: tpe models them")
    return lines
