"""What a study is made of: its data and its teachers, the same on every machine and at every start."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from absld_search.core import data, logit_bank, method_code, teachers
from absld_search.core.files import cache_folder
from absld_search.core.teacher_making import ensure_teacher
from absld_search.core.views import count as view_count
from absld_search.search import preparing, teacher_copies
from absld_search.search.ledger import FINAL, Ledger, as_json
from absld_search.search.plan import Plan
from absld_search.words import UsageError

CHANGED = (
    "warning  the code of method {0!r} has changed since this study began to train it: what was trained before is not "
    "trained anew. Another --study, without --reuse, holds the new code alone"
)
WORTH_A_WORD = 10_000_000  # bytes


class Inputs:
    """Has them made, fetched and compared with those in the ledger, which an earlier start has put there."""

    def __init__(self, plan: Plan, ledger: Ledger, say: Callable[[str], None], passing: Callable[[str], None]) -> None:
        self.plan, self.ledger, self.say, self.passing = plan, ledger, say, passing

    def unchanged(self) -> None:
        """The data are the study's: asked before anything of it is changed. Where nothing is left to train, data that
        cannot be read are no matter: what is finished is answered without them. Raises: UsageError."""
        if self.ledger.known("data") is None:
            return
        try:
            found = self._data()
        except UsageError:
            if self.plan.request.retry_failed or any(row["state"] not in FINAL for row in self.ledger.trainings()):
                raise
            return
        self._compare(found)

    def data(self) -> None:
        """The data are decoded before Ray starts, and are those that the study began with."""
        self._compare(self._data())
        setting, where = self.plan.setting, self.plan.folders.data
        for line in data.counted(setting.dataset, setting.split, where):
            self.say(line)

    def _data(self) -> dict[str, object]:
        return data.facts(self.plan.setting.dataset, self.plan.setting.split, self.plan.folders.data)

    def _compare(self, found: dict[str, object]) -> None:
        if self.ledger.fact("data", found) != as_json(found):
            raise UsageError(
                f"--data-dir: the data differ from those that study {self.plan.request.study!r} began with."
            )

    def made_by(self, asks: bool) -> None:
        """Write down what proposes, where a start `asks` for new trials, and the methods' code; say where that is other
        code than a method was trained with before. What an older program began is not guessed at."""
        begun = any(row["attempts"] for row in self.ledger.trainings())
        if asks and (self.ledger.known("samplers") or not begun):
            self._append("samplers", self.plan.sampler)
        for name in sorted({name for name, _ in self.plan.methods()}):
            if self.ledger.known(f"code:{name}") or not begun:
                if len(set(self._append(f"code:{name}", method_code.of(name)))) > 1:
                    self.say(CHANGED.format(name))

    def _append(self, key: str, value: str) -> list[str]:
        """The fact, a list that ends with `value` now."""
        known: list[str] = self.ledger.known(key) or []
        if known[-1:] != [value]:
            known = [*known, value]
            self.ledger.note(key, known)
        return known

    def teachers(self) -> None:
        """Make or measure every teacher before Ray starts, so that no worker waits for another's."""
        plan = self.plan
        self._fetch()
        for name in plan.teachers():
            file = ensure_teacher(plan.setting, name, plan.request.device, self.say, plan.folders, self.passing)
            self.passing("")
            self._same(name, teachers.facts(file))
            self._keep(name, teacher_copies.read(file, weights=teacher_copies.trained_here(plan.setting, name)))
        self._say_logits()

    def _fetch(self) -> None:
        """Those that the store has, into this machine's cache; of several by one recipe the study's own."""
        for name in self.plan.teachers():
            digest = (self.ledger.known(f"teacher:{name}") or {"sha256": ""})["sha256"]
            teacher_copies.fetch(self.plan.request.store, self.plan.setting, name, self.plan.folders, digest)

    def _keep(self, name: str, made: teacher_copies.Made) -> None:
        teacher_copies.keep(self.plan.request.store, self.plan.setting, name, self.plan.folders, made)

    def of_machines(self) -> None:
        """The same for every machine of a cluster: the driver's own may train nothing, and lack the GPU for it."""
        self._fetch()
        found = preparing.on_each_node(self.plan, self.say)
        if as_json(found.data) != self.ledger.known("data"):
            raise UsageError("--data-dir: the cluster's machines have other data than the driver's.")
        for name, made in found.teachers.items():
            self._same(name, json.loads(made.facts))
            self._keep(name, made)
        self._say_logits()

    def _same(self, name: str, found: dict[str, Any]) -> None:
        """Raises: UsageError where it is not the study's."""
        if self.ledger.fact(f"teacher:{name}", found)["sha256"] != found["sha256"]:
            raise UsageError(
                f"teacher {name} is another than the one that study {self.plan.request.study!r} began with."
            )

    def _say_logits(self) -> None:
        """How much disk the teachers' logits come to, where that is worth a word."""
        plan, names = self.plan, self.plan.teachers()
        counts = data.facts(plan.setting.dataset, plan.setting.split, plan.folders.data)["counts"]
        assert isinstance(counts, dict)
        epochs = max(plan.config(arm.words, seed=0).schedule.epochs for arm in plan.arms)
        streams = len({*plan.search_seeds, *plan.confirm_seeds})
        views, classes = plan.setting.augmentation, len(counts["train"])
        size = logit_bank.estimate(sum(counts["train"]), view_count(views), classes, epochs, streams) * len(names)
        if size >= WORTH_A_WORD:
            where = cache_folder() / "logits"
            self.say(f"the teachers' logits come to at most {size / 1e9:.1f} GB in {where}, until deleted")
