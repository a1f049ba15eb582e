"""The invariants can fail: each finds what is planted in a study with rungs, a race and a constraint."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from absld_search.core import checkpoints
from absld_search.search.ledger import COMPLETE, INFEASIBLE, STOPPED, Ledger
from tests.faults import fake
from tests.faults.invariants import check


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged")
    made = fake.study(out, **fake.STAGES)
    fake.drive(made)
    return made.folder


def test_a_study_with_every_stage_and_state_is_whole(staged: Path) -> None:
    ledger = Ledger(f"sqlite:///{staged / 'study.db'}", "study")
    assert {row["stage"] for row in ledger.trainings()} == {"rung", "search", "race", "confirm"}
    assert {row["state"] for row in ledger.trials()} == {COMPLETE, STOPPED, INFEASIBLE}
    check(staged, settled=True)


def said(text: str) -> Callable[[Path], None]:
    """SQL in the study's database."""

    def work(folder: Path) -> None:
        with sqlite3.connect(folder / "study.db") as database:
            assert database.execute(text).rowcount, text

    return work


def checkpoint(folder: Path, epoch: int, damaged: bool) -> None:
    file = checkpoints.save(next(folder.glob("trainings/*")), epoch, {"epoch": epoch})
    if damaged:
        file.write_bytes(file.read_bytes()[:-1] + b"x")


def other_front(folder: Path) -> None:
    file = folder / "results/trials.parquet"
    table = pq.ParquetFile(file).read()
    index = table.schema.get_field_index("pareto")
    pq.write_table(table.set_column(index, table.schema.field(index), pc.invert(table["pareto"])), file)


def becomes(state: str, of: str) -> Callable[[Path], None]:
    """The first trial of a state gets another."""
    first = f"(SELECT MIN(trial) FROM absld_trials WHERE state = '{of}')"
    return said(f"UPDATE absld_trials SET state = '{state}' WHERE trial = {first}")


def valued(text: str) -> Callable[[Path], None]:
    """The infeasible trials get these objectives."""
    return said(f"UPDATE absld_trials SET objectives = '{text}' WHERE state = 'INFEASIBLE'")


TRAININGS = "UPDATE absld_trainings SET"
PLANTED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a state that there is not": ("(1)", said(f"{TRAININGS} state = 'LOST' WHERE position = 1")),
    "stopped, but told as complete": ("(4)", becomes(COMPLETE, of=STOPPED)),
    "trained to its end, but stopped": ("(4)", becomes(STOPPED, of=COMPLETE)),
    "a broken constraint": ("(1, 2)", becomes(COMPLETE, of=INFEASIBLE)),
    "running for nobody": ("(1)", said(f"{TRAININGS} state = 'RUNNING' WHERE position = 1")),
    "a zombie of Optuna's": ("(1, 2)", said("UPDATE trials SET state = 'RUNNING' WHERE number = 0")),
    "feasible for Optuna": ("(1, 2)", said("DELETE FROM trial_system_attributes WHERE key LIKE '%constr%'")),
    "trained twice": ("(3)", said(f"{TRAININGS} seed = 500 WHERE stage = 'race'")),
    "a value that is none": ("(4)", valued('{"robust_cvar": 0.5, "robust_accuracy": Infinity}')),
    "another value": ("(5)", valued('{"robust_cvar": 0.5, "robust_accuracy": 0.5}')),
    "a damaged checkpoint": ("(6)", lambda folder: checkpoint(folder, 9, damaged=True)),
    "a checkpoint of what is complete": ("(6)", lambda folder: checkpoint(folder, 9, damaged=False)),
    "half a file": ("(6)", lambda folder: (folder / f".study.json.{os.getpid()}.tmp").touch()),
    "another front": ("(7)", other_front),
    "something beside the study": ("(8)", lambda folder: (folder.parent / "left").touch()),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str, staged: Path, tmp_path: Path) -> None:
    number, plant = PLANTED[planted]
    shutil.copytree(staged, tmp_path / "out" / "study")
    plant(tmp_path / "out" / "study")
    with pytest.raises(AssertionError) as found:
        check(tmp_path / "out" / "study", settled=True)
    assert str(found.value).startswith(number), str(found.value)[:500]
