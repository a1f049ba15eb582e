"""optuna-dashboard on a study's database shows each arm's front: asked through its own interface, on a real socket."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest

from absld_search.core import results

dashboard = pytest.importorskip("optuna_dashboard")


class Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def served(database: Path) -> Iterator[str]:
    """The dashboard's address."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    with make_server("127.0.0.1", 0, dashboard.wsgi(storage), handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return json.loads(reply.read())


def test_every_arm_has_its_front_in_the_dashboard(study: Path) -> None:
    tables = results.load(study)
    trials = tables.trials.to_pandas()
    with served(study / "study.db") as address:
        listed = {one["study_name"]: one for one in asked(f"{address}/api/studies")["study_summaries"]}
        for arm in tables.facts["arms"]:
            one = listed[f"{study.name}.{arm}"]
            detail = asked(f"{address}/api/studies/{one['study_id']}?after=0")
            shown = {f"{arm}-{trial['number']:03d}" for trial in detail["best_trials"]}
            assert shown == set(trials[(trials.arm == arm) & trials.pareto_arm].trial)
            assert detail["objective_names"] == list(tables.facts["objectives"])
            assert {trial["state"] for trial in detail["trials"]} <= {"Complete", "Fail"}
