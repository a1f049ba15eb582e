"""Copies of the teachers that are trained here: between machines, and in the store, where new machines look first.

In the store each is two files, named by the recipe and by the hash of the weights: `teachers/RECIPE-HASH.safetensors`
and, sent after it, `.json` with what was measured. So nothing there is ever replaced, what a kill left half sent is not
seen, and of two machines that round differently each keeps its own.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import NamedTuple

from absld_search.core import teachers
from absld_search.core.files import Folders, sha256, write_atomic
from absld_search.core.store import Store
from absld_search.search.sending import patiently
from absld_search.workloads import TeacherSpec, Workload, teacher_spec

PLACE = "teachers"  # in the store


class Made(NamedTuple):
    """A teacher: its weights, if they were trained here and not a person's file, and what is noted of them."""

    weights: bytes
    facts: bytes

    @property
    def digest(self) -> str:
        """sha256 of the weights."""
        return str(json.loads(self.facts)["sha256"])


def trained_here(setting: Workload, name: str) -> bool:
    """Whether a teacher is trained by this program, and not read from a person's file."""
    return isinstance(teacher_spec(setting, name), TeacherSpec)


def read(file: teachers.TeacherFile, weights: bool) -> Made:
    """What lies in the cache, with or without its weights."""
    return Made(file.path.read_bytes() if weights else b"", file.facts.read_bytes())


def take_over(file: teachers.TeacherFile, made: Made) -> None:
    """Have it in the cache, in the place of whatever is there."""
    if file.valid() and file.facts.read_bytes() == made.facts:
        return
    write_atomic(file.path, made.weights, "teacher")
    write_atomic(file.facts, made.facts, "teacher")


def fetch(uri: str, setting: Workload, name: str, folders: Folders, digest: str = "") -> None:
    """Have a trained teacher in this machine's cache where the store at `uri`, if there is one, knows it.

    `digest`: sha256 of the one that the study began with; any will do where that is not known. Raises: Away.
    """
    if not uri or not trained_here(setting, name):
        return
    file = teachers.teacher_file(setting, name, folders)
    with teachers.making(file):  # of several trainings that begin here, one fetches
        if file.valid() and digest in ("", teachers.facts(file)["sha256"]):
            return
        if (found := patiently(lambda: _found(Store(uri), file.path.stem, digest))) is not None:
            take_over(file, found)


def keep(uri: str, setting: Workload, name: str, folders: Folders, made: Made) -> None:
    """Have a trained teacher in the store, if there is one. Raises: Away."""
    if not uri or not trained_here(setting, name):
        return
    recipe = teachers.teacher_file(setting, name, folders).path.stem
    patiently(lambda: _send(Store(uri), recipe, made))


def _send(store: Store, recipe: str, made: Made) -> None:
    stem = f"{recipe}-{made.digest[:16]}"
    if _found(store, recipe, made.digest) is None:  # not there, or damaged
        store.write(f"{PLACE}/{stem}.safetensors", made.weights)
        store.write(f"{PLACE}/{stem}.json", made.facts)


def _found(store: Store, recipe: str, digest: str) -> Made | None:
    """The first one of this recipe that is whole and, where `digest` is given, the one that is meant."""
    for name in sorted(store.files(PLACE)):
        if name.startswith(f"{recipe}-{digest[:16]}") and name.endswith(".json"):
            weights = PurePosixPath(PLACE, name).with_suffix(".safetensors").as_posix()
            made = _whole(store, weights, store.read(f"{PLACE}/{name}"))
            if made is not None and digest in ("", made.digest):
                return made
    return None


def _whole(store: Store, weights: str, facts: bytes) -> Made | None:
    try:
        made = Made(store.read(weights), facts)
        return made if sha256(made.weights) == made.digest else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
