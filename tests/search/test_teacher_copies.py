"""A teacher is trained once: machines that come later, with a cache of their own, fetch it from the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from absld_search.core import models, teacher_making, teachers
from absld_search.core.store import Store
from absld_search.search import sending, teacher_copies, worker
from absld_search.search.inputs import Inputs
from absld_search.search.ledger import Ledger
from absld_search.search.preparing import prepare
from absld_search.search.study import why_stopped
from absld_search.words import Away
from absld_search.workloads import TeacherSpec, teacher_spec, workload
from tests.search.requests import plan
from tests.search.test_queue import open_queue

SETTING = workload("digits-smoke")
NAME = next(iter(SETTING.teachers))
Machine = Callable[[str], teachers.TeacherFile]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """From now on this is the machine of that name, with a cache of its own; the teacher's place in it."""

    def at(name: str) -> teachers.TeacherFile:
        monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / name))
        return teachers.teacher_file(SETTING, NAME)

    return at


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def trained(file: teachers.TeacherFile, seed: int) -> teacher_copies.Made:
    """A teacher of the right kind, without the training."""
    spec = teacher_spec(SETTING, NAME)
    assert isinstance(spec, TeacherSpec)
    file.write(models.build(spec.model, 10, 1, seed, size=8), {"clean_accuracy": 0.9})
    return teacher_copies.read(file, weights=True)


def kept(uri: str, made: teacher_copies.Made) -> None:
    teacher_copies.keep(uri, SETTING, NAME, teachers.NOWHERE, made)


def fetched(uri: str, digest: str = "") -> None:
    teacher_copies.fetch(uri, SETTING, NAME, teachers.NOWHERE, digest)


def nobody_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_making._Maker, "train", lambda *_: pytest.fail("a teacher is trained again"))


def test_a_new_machine_fetches_the_teacher_and_trains_none(
    machine: Machine, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(tmp_path, store=uri)
    ledger = Ledger(made.request.storage, made.request.study)
    first = machine("first")
    Inputs(made, ledger, print, print).teachers()
    nobody_trains(monkeypatch)
    second = machine("second")
    Inputs(made, ledger, print, print).teachers()
    assert second.valid() and second.facts.read_bytes() == first.facts.read_bytes()
    assert first.path != second.path and second.path.read_bytes() == first.path.read_bytes()


def test_a_machine_that_joins_a_running_study_fetches_its_teacher(
    machine: Machine, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("other")
    kept(uri, trained(machine("other"), seed=2))
    ours = trained(machine("driver"), seed=1)
    kept(uri, ours)
    nobody_trains(monkeypatch)
    row, joined = open_queue(plan(tmp_path, store=uri)).take(), machine("joined")
    assert row is not None
    words: dict[str, Any] = {"store": (uri, "study/trainings"), "teachers": {NAME: ours.digest}}
    monkeypatch.setattr(worker.tune, "report", lambda said: None)  # there is no Tune to hear of epochs
    found = worker.train(row, str(tmp_path / "joined-trainings"), {"data": "", "teachers": ""}, **words)
    assert "final" in found, found
    assert json.loads(joined.facts.read_text())["sha256"] == ours.digest


def test_of_two_that_round_differently_the_studys_own_is_taken(machine: Machine, uri: str) -> None:
    first, second = trained(machine("first"), seed=1), trained(machine("second"), seed=2)
    for made in (first, second):
        kept(uri, made)
    for made in (second, first):
        file = machine("third")
        fetched(uri, made.digest)
        assert teachers.facts(file)["sha256"] == made.digest and file.valid()
    fetched(uri)
    assert teachers.facts(file)["sha256"] == first.digest, "one that is here and whole is enough where none is meant"


def test_what_is_cut_off_or_damaged_in_the_store_is_nothing_and_is_sent_again(
    machine: Machine, uri: str, tmp_path: Path
) -> None:
    made = trained(machine("first"), seed=1)
    kept(uri, made)
    (facts,) = (tmp_path / "store/teachers").glob("*.json")
    weights = facts.with_suffix(".safetensors")
    damaged = bytearray(made.weights)
    damaged[-1] ^= 1
    for what in (bytes(damaged), made.weights[:-1], None):
        weights.write_bytes(what) if what else weights.unlink()
        file = machine(f"fetching-{len(what or b'')}-{what is None}")
        fetched(uri)
        assert not file.path.exists() and not file.facts.exists()
        kept(uri, made)
        fetched(uri)
        assert file.valid() and file.path.read_bytes() == made.weights


def test_the_facts_come_last_so_that_a_kill_leaves_nothing_to_be_seen(
    machine: Machine, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, sent = trained(machine("first"), seed=1), list[str]()
    write = Store.write

    def until_the_facts(store: Store, name: str, content: bytes) -> None:
        sent.append(name)
        if name.endswith(".json"):
            raise KeyboardInterrupt
        write(store, name, content)

    monkeypatch.setattr(Store, "write", until_the_facts)
    with pytest.raises(KeyboardInterrupt):
        kept(uri, made)
    assert [name.rpartition(".")[2] for name in sent] == ["safetensors", "json"]
    file = machine("second")
    fetched(uri)
    assert not file.path.exists()


def test_a_machine_is_handed_what_the_first_one_has(
    machine: Machine, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained(machine("first"), seed=1)
    nobody_trains(monkeypatch)
    file = machine("second")
    found = prepare("digits-smoke", [NAME], "cpu", teachers.NOWHERE, {NAME: made})
    assert file.valid() and found.teachers[NAME] == made


def test_a_store_that_is_away_is_waited_for_and_blames_nobody(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.0, 0.0))
    made = trained(machine("first"), seed=1)
    (tmp_path / "file").touch()  # nothing can be written below it
    with pytest.raises(Away, match="the store is away") as raised:
        kept(f"file://{tmp_path}/file", made)
    assert why_stopped(raised.value) == str(raised.value), "the driver ends with 75"
