"""A small plan for tests, and a stand-in for training that costs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absld_search.core.metrics import NAMES
from absld_search.search.ledger import sqlite_url
from absld_search.search.plan import Plan, Request, resolve
from absld_search.space import LogUniform, SearchSpace

TWO_ARMS = SearchSpace(
    fixed={"method": "absld"},
    arms={"dual": {"coupling": "dual"}, "rslad": {"temperature_lr": 0.0}},
    tuned={"temperature_lr": LogUniform(1e-2, 1.0)},
)
TAILS = (
    "worst_class_robust_accuracy", "shrunken_worst_class_robust_accuracy", "worst_tenth_robust_accuracy",
    "robust_cvar", "robust_softmin",
)  # fmt: skip


def request(out: Path, study: str = "study", **words: Any) -> Request:
    """A request on the tiny digits workload."""
    place = {"storage": sqlite_url(out / study / "study.db"), "tracking_uri": sqlite_url(out / "mlflow.db")}
    (out / study).mkdir(parents=True, exist_ok=True)
    settled = {"workload": "digits-smoke", "trials": 4, "seeds": 2, **place, **words}
    return Request(space="two_arms", question="Does it?", study=study, out=out, command="test", **settled)


def plan(out: Path, space: SearchSpace = TWO_ARMS, **words: Any) -> Plan:
    """A resolved plan in `out`."""
    return resolve(request(out, **words), space)


def pretend(job: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as a function of the configuration and the seed: worst class and average pull apart."""
    rate = job["hyperparameters"].get("temperature_lr", 0.0)
    noise = math.sin(1000 * job["seed"]) / 100
    values = dict.fromkeys([*NAMES, *(f"test/{name}" for name in NAMES)], 0.5)
    tail = {name: 0.4 + 0.1 * rate + noise for name in NAMES if name in TAILS}
    return values | tail | {"robust_accuracy": 0.7 - 0.1 * rate + noise}
