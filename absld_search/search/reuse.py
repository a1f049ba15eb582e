"""Trainings that another study under the same --out has done already: found by their key, taken over, and said.

A training's key holds its whole configuration and its seed. Data and published teachers are files, of which it holds
the names alone; so only studies are asked that measured the same data and the same teachers.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from absld_search.core import method_code, results
from absld_search.core.store import Store
from absld_search.search import reading
from absld_search.search.ledger import TOOK, Ledger, Row, as_json
from absld_search.search.plan import Plan
from absld_search.search.sending import away, place


class Reuse:
    """An observer: puts another study's results where the worker, about to start, finds its training complete."""

    def __init__(self, plan: Plan, ledger: Ledger, say: Callable[[str], None]) -> None:
        self.plan, self.ledger, self.say = plan, ledger, say
        self.found: dict[str, list[Path]] | None = None

    def started(self, training: Row) -> None:
        """Take its results over, where somebody has them."""
        if not self.plan.request.reuse:
            return
        target = self.plan.folder / "trainings" / training["training"]
        if target.exists():  # begun here: its checkpoint goes on
            return
        for source in self._known().get(training["training"], ()):
            if complete(source, training["job"]["test"]):
                if not self._sent(source):
                    return
                take_over(source, target)
                seconds = reading.epoch_seconds(target) * training["job"]["schedule"]["epochs"]
                self.ledger.note(f"{TOOK}{training['training']}", seconds)
                self.say(f"training {training['training']} is taken over from study {source.parents[1].name!r}")
                return

    def _sent(self, source: Path) -> bool:
        """Put it into the store, where there is one: a worker looks there alone. False: the store is away, so the
        training is trained, and costs what it costs."""
        try:
            if self.plan.request.store:
                Store(self.plan.request.store).push(source, f"{place(self.plan)}/{source.name}")
        except OSError as error:
            self.say(f"training {source.name} is not taken over: {away(error)}")
            return False
        return True

    def _known(self) -> dict[str, list[Path]]:
        """Key -> the folders of that training in other studies; looked for once a start."""
        if self.found is None:
            self.found = {}
            for study in sorted(path.parent for path in self.plan.request.out.glob("*/study.json")):
                if study != self.plan.folder and self._same_inputs(study):
                    for folder in study.glob("trainings/*"):
                        self.found.setdefault(folder.name, []).append(folder)
        return self.found

    def _same_inputs(self, study: Path) -> bool:
        """Whether it measured our data, and every teacher that both know as we did."""
        try:
            facts = json.loads((study / "study.json").read_text(encoding="utf-8"))
            theirs = {name: found["sha256"] for name, found in facts["teachers"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        ours = {name: self.ledger.known(f"teacher:{name}") for name in self.plan.teachers()}
        needed = {name: found["sha256"] for name, found in ours.items() if found}
        same = all(theirs.get(name) == known for name, known in needed.items() if name in theirs)
        same = same and self._same_code(facts.get("code", {}))
        return same and bool(facts["data"]) and facts["data"] == as_json(self.ledger.known("data"))

    def _same_code(self, theirs: Mapping[str, list[str]]) -> bool:
        """Whether every method that both train is one code; of a study that wrote none down nobody knows."""
        return all(theirs[name] == [digest] for name, digest in self._codes.items() if name in theirs)

    @cached_property
    def _codes(self) -> dict[str, str]:
        """Of every method that is trained here, as this process has it; read once, however many studies are asked."""
        return {name: method_code.of(name) for name, _ in self.plan.methods()}

    def epoch(self, training: str, number: int, metrics: Mapping[str, float]) -> None: ...
    def training_done(self, training: Row) -> None: ...
    def trial_done(self, trial: Row) -> None: ...


def complete(folder: Path, test: bool) -> bool:
    """Whether a training's results are whole, and hold test values where those are asked for."""
    found: dict[str, Any] | None = results.read_result(folder)
    return found is not None and (not test or any(name.startswith("test/") for name in found))


def take_over(source: Path, target: Path) -> None:
    """Copy a complete training, so that it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    shutil.copytree(source, making, ignore=shutil.ignore_patterns("lock"))
    making.rename(target)
