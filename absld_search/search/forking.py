"""`--fork-study`: what no longer fits under a name goes on under the next one, and remembers where it is from."""

from __future__ import annotations

import itertools
from dataclasses import replace

from absld_search.search import preflight
from absld_search.search.database import sqlite_url
from absld_search.search.plan import Plan
from absld_search.words import UsageError

MOST = 1000  # forks of one study


def forked(plan: Plan) -> Plan:
    """The plan under its own name where that is free or the same study, else under NAME-2, NAME-3, ...

    A fork that was made before by the same command is found again, so running it again continues it.
    Raises: UsageError.
    """
    try:
        preflight.check_storage(plan)
        return plan
    except preflight.Differs:
        pass
    for number in itertools.islice(itertools.count(2), MOST):
        candidate = _renamed(plan, f"{plan.request.study}-{number}")
        try:
            preflight.check_storage(candidate)
            return candidate
        except preflight.Differs:
            continue
    raise UsageError(f"--fork-study: study {plan.request.study!r} has {MOST} forks already.")


def _renamed(plan: Plan, study: str) -> Plan:
    request = plan.request
    own = request.storage == sqlite_url(plan.folder / "study.db")
    storage = sqlite_url(request.out / study / "study.db") if own else request.storage
    show = request.show.removesuffix(request.study) + study
    return replace(plan, request=replace(request, study=study, storage=storage, show=show, forked_from=request.study))
