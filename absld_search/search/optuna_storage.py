"""The study's database as Optuna sees it."""

from __future__ import annotations

import optuna

from absld_search.search.database import one_of_us_does, waiting


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage there, its tables made where they are missing."""
    arguments = {"connect_args": waiting(url)}
    return one_of_us_does(lambda: optuna.storages.RDBStorage(url, engine_kwargs=arguments))
