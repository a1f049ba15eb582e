"""A study whose ledger and Optuna studies lie in PostgreSQL, beside others."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from absld_search.search.database import connect
from absld_search.search.ledger import COMPLETE, RUNNING, Ledger
from absld_search.search.plan import Plan
from absld_search.search.preflight import check_storage
from absld_search.words import UsageError
from tests.search.requests import plan, pretend
from tests.search.test_queue import drain, open_queue


def planned(out: Path, url: str, study: str, **words: object) -> Plan:
    return plan(out, study=study, storage=url, **words)


def test_two_studies_in_one_database_are_two_studies(postgresql: str, tmp_path: Path) -> None:
    for study in ("first", "second"):
        check_storage(planned(tmp_path, postgresql, study))
        queue = open_queue(planned(tmp_path, postgresql, study))
        assert [row["stage"] for row in drain(queue)] == ["search"] * 5 + ["confirm"] * 4
        states = [trial.state.name for trial in queue.studies["dual"].study.get_trials()]
        assert states == ["COMPLETE"] * 4
    assert drain(open_queue(planned(tmp_path, postgresql, "first"))) == []
    more = drain(open_queue(planned(tmp_path, postgresql, "first", trials=6)))
    assert len([row for row in more if row["stage"] == "search"]) == 2
    assert len(Ledger(postgresql, "second").trials(arm="dual")) == 4
    with pytest.raises(UsageError, match="was made with"):
        check_storage(planned(tmp_path, postgresql, "first", set={"eps": "0.2"}))


def test_what_a_dead_driver_left_running_goes_on(postgresql: str, tmp_path: Path) -> None:
    queue = open_queue(planned(tmp_path, postgresql, "dies"))
    taken = [queue.take(), queue.take()]
    assert taken[0] and taken[1]
    queue.done(taken[0]["training"], pretend(taken[0]["job"]), "", epochs=2, seconds=0.1)
    assert [row["training"] for row in queue.ledger.trainings(state=RUNNING)] == [taken[1]["training"]]
    drain(open_queue(planned(tmp_path, postgresql, "dies")))
    trainings = Ledger(postgresql, "dies").trainings()
    assert {row["state"] for row in trainings} == {COMPLETE} and len(trainings) == 9
    assert {row["attempts"] for row in trainings} == {1, 2}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_asked_once_a_trial_is_found_by_an_index(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An older database gets them too."""
    url = request.getfixturevalue("postgresql") if kind == "postgresql" else f"sqlite:///{tmp_path}/study.db"
    names = {"config", "state", "position", "stage"}
    Ledger(url, "old")
    with connect(url).begin() as connection:
        for name in names:
            connection.execute(sa.text(f"DROP INDEX absld_trainings_by_{name}"))
    engine = Ledger(url, "old").engine
    found = {index["name"]: index["column_names"] for index in sa.inspect(engine).get_indexes("absld_trainings")}
    assert found.keys() == {f"absld_trainings_by_{name}" for name in names}
    assert found["absld_trainings_by_state"] == ["study", "state", "position"]
