"""Optuna trials that stay RUNNING for nobody, and their end."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from absld_search.search.ledger import FINAL, Ledger
from absld_search.search.optuna_storage import open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
DROPPED = "dropped"  # a user attribute


def drop(study: optuna.Study, number: int) -> None:
    """End a trial that nobody wrote down; what it was to try is tried again, so no point is lost.

    A point that was given is given again; what was sampled is sampled again, for a proposal depends on the number of
    the trials that count, and this one counts no more. Genetic samplers have noted the parents by now, in another order
    than the one they drew from, so what they proposed is given.
    """
    frozen = study.get_trials(deepcopy=False)[number]
    study._storage.set_trial_user_attr(frozen._trial_id, DROPPED, True)
    genetic = any(key.endswith(":generation") for key in frozen.system_attrs)
    point = frozen.system_attrs.get("fixed_params", frozen.params if genetic else {})
    waiting = [trial.system_attrs.get("fixed_params") for trial in study.get_trials(False, (TrialState.WAITING,))]
    if point and point not in waiting:
        study.enqueue_trial(point)
    study.tell(number, state=TrialState.FAIL)  # last: until then the next start drops it again


def zombies(ledger: Ledger) -> list[str]:
    """Trials, by name, that Optuna believes under way and the ledger does not know, or knows to have ended."""
    return [f"{study.study_name.removeprefix(ledger.study + '.')}-{number:03d}" for study, number in _found(ledger)]


def reap(ledger: Ledger) -> str:
    """End them. Only for who holds the study."""
    found = _found(ledger)
    for study, number in found:
        drop(study, number)
    return f"ended {len(found)}; what they were to try is tried again"


def _found(ledger: Ledger) -> list[tuple[optuna.Study, int]]:
    storage = open_storage(ledger.url)
    under_way = {(row["arm"], row["number"]) for row in ledger.trials() if row["state"] not in FINAL}
    found = []
    for name in optuna.get_all_study_names(storage):
        arm = name.removeprefix(f"{ledger.study}.")
        if arm == name:
            continue  # another study's, in the same database
        study = optuna.load_study(study_name=name, storage=storage)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        found += [(study, trial.number) for trial in running if (arm, trial.number) not in under_way]
    return found
