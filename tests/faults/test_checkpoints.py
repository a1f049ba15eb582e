"""C1: whatever stands in place of a checkpoint, the one before it is used, the user is told, and no code runs."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
import tarfile
from pathlib import Path

import pytest
import torch

from absld_search.core import checkpoints, faults
from absld_search.core.files import is_full, replacing, sha256

CASES = int(os.environ.get("ABSLD_FAULT_ROUNDS", "40"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for epoch in (1, 2, 3):
        checkpoints.save(tmp_path, epoch, {"epoch": epoch, "weights": torch.randn(5000)})
    return tmp_path


def newest(folder: Path) -> Path:
    return sorted(folder.glob("epoch-*.pt"))[-1]


def falls_back(folder: Path) -> str:
    """What is said when epoch 2 is read in place of 3."""
    said: list[str] = []
    state = checkpoints.newest(folder, said.append)
    assert state is not None and state["epoch"] == 2
    assert len(said) == 1 and "epoch-00003" in said[0] and "epoch-00002" in said[0]
    return said[0]


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("weights"), io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize("share", [0, None, 0.5, 0.999])
def test_cut_off(folder: Path, share: float | None) -> None:
    content = newest(folder).read_bytes()
    newest(folder).write_bytes(content[: 1 if share is None else int(share * len(content))])
    assert "damaged" in falls_back(folder)


def test_bits_flipped_and_cut_anywhere(folder: Path) -> None:
    content, rng = newest(folder).read_bytes(), random.Random(0)
    for case in range(CASES):
        damaged = bytearray(content)
        if case % 2:
            del damaged[rng.randrange(len(content)) :]
        for _ in range(0 if case % 2 else 64):
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        newest(folder).write_bytes(damaged)
        falls_back(folder)


@pytest.mark.parametrize("named", [False, True], ids=["under the old hash", "under its own hash"])
@pytest.mark.parametrize(("kind", "word"), [("html", "an HTML page"), ("tar", ""), ("evil", ""), ("empty", "empty")])
def test_something_else_in_its_place(folder: Path, kind: str, word: str, named: bool) -> None:
    canary = folder / "canary"
    content = {"html": b"<!doctype html>quota", "tar": tar(), "evil": pickle.dumps(Evil(canary)), "empty": b""}[kind]
    path = newest(folder)
    path.write_bytes(content)
    if named:  # somebody who knows how the names are made
        path.rename(folder / f"epoch-00003-{sha256(content)[:16]}.pt")
    assert word in falls_back(folder)
    assert not canary.exists()


def test_none_that_is_whole_is_said_too(folder: Path) -> None:
    for path in folder.glob("epoch-*.pt"):
        path.write_bytes(b"")
    said: list[str] = []
    assert checkpoints.newest(folder, said.append) is None
    assert len(said) == 2 and "begun anew" in said[1]


def test_going_on_from_the_one_before_keeps_two_that_are_whole(folder: Path) -> None:
    """The damaged one does not count among the two, or one more damage would lose everything."""
    checkpoints.save(folder, 10, {"epoch": 10})
    newest(folder).write_bytes(b"")
    checkpoints.save(folder, 4, {"epoch": 4})  # gone on from 3, since 10 was damaged
    newest(folder).write_bytes(b"")
    state = checkpoints.newest(folder)
    assert state is not None and state["epoch"] == 3


def test_a_full_disk_keeps_the_last_good_one(folder: Path) -> None:
    for step in faults.STEPS[:-1]:
        faults.arm(f"checkpoint.{step}:1+:enospc")
        try:
            with pytest.raises(OSError) as raised:
                checkpoints.save(folder, 4, {"epoch": 4})
        finally:
            faults.arm("")
        assert raised.value.errno == errno.ENOSPC and is_full(raised.value)
        state = checkpoints.newest(folder)
        assert state is not None and state["epoch"] == 3 and not list(folder.glob(".*"))


def test_killed_writers_leave_nothing_for_ever(folder: Path) -> None:
    (folder / ".epoch-00004-0123456789abcdef.pt.1.tmp").write_bytes(b"half")

    class Nothing:
        def state_dict(self) -> dict:
            return {}

        def load_state_dict(self, state: object) -> None:
            pass

    checkpoints.go_on(Nothing(), folder)
    assert not list(folder.glob(".*"))


def test_a_fault_that_nobody_knows_is_refused() -> None:
    for text, word in {"checkpoint.before_fsnc:1": "before_fsync", "result.after_rename": "POINT:K"}.items():
        with pytest.raises(ValueError, match=word):
            faults.arm(text)
    faults.arm("")


def test_a_fault_happens_at_its_passing_only(tmp_path: Path) -> None:
    faults.arm("file.before_rename:2:raise")
    try:
        for number in (1, 2, 3):
            try:
                with replacing(tmp_path / f"{number}") as temporary:
                    temporary.write_text("x")
            except faults.Injected:
                assert number == 2
    finally:
        faults.arm("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]
