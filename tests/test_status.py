"""A study is looked at from another terminal: read only, whatever its driver does; and the driver's own display."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from absld_search import status
from absld_search.search import gpu_use, ownership, tables
from absld_search.search.ledger import COMPLETE, FAILED, Ledger, sqlite_url
from absld_search.search.progress import Progress, planned
from absld_search.search.queue import Queue
from absld_search.search.reading import last_epoch, look
from absld_search.search.standing import lines, standing
from tests.search.requests import plan, pretend

ROOT = Path(__file__).parents[1]


def told(folder: Path, *words: str) -> Any:
    found = CliRunner().invoke(status.main, [str(folder), "--json", *words])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """A study of two arms with three trainings done, one failed and one running."""
    asked = plan(tmp_path)
    ledger = Ledger(asked.request.storage, asked.request.study)
    queue = Queue(asked, ledger)
    for number in range(5):
        row = queue.take()
        assert row is not None
        if number == 3:
            queue.done(row["training"], None, "nonfinite:loss", epochs=1)
        elif number < 3:
            queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=4.0)
    (log := tmp_path / "study/trainings" / row["training"]).mkdir(parents=True)
    (log / "epochs.jsonl").write_text('\n{"epoch": 1, "metrics": {}}\n{"epoch": 2, "metr')
    (tmp_path / "study/study.json").write_text(json.dumps({"study": "study", "planned": planned(asked)}))
    ledger.engine.dispose()
    return tmp_path / "study"


def test_the_numbers_are_the_ledgers(half_done: Path) -> None:
    found = told(half_done)["standing"]
    assert (found["done"], found["total"]) == (4, 4 + 1 + 2 * 2)
    assert found["stages"] == {"search": [4, 5], "confirm": [0, 4]}
    assert list(found["interrupted"].values()) == [[1, 2]] and list(found["failed"].values()) == ["nonfinite:loss"]
    assert found["left"] == pytest.approx(4.5 * 4.0) and 1 <= found["front"] <= 3
    ledger = Ledger(sqlite_url(half_done / "study.db"), "study")
    whole = [row["metrics"]["worst_class_robust_accuracy"] for row in ledger.trainings(state=COMPLETE)]
    assert found["best"] == max(whole) and len(ledger.trainings(state=FAILED)) == 1


def test_with_rungs_the_short_trainings_are_planned_too(tmp_path: Path) -> None:
    asked = plan(tmp_path, trials=9, stopping="asha", eta=2, set={"epochs": "4"})
    assert planned(asked) == {"search": 9 // 2 + 1, "confirm": 4, "rung": 9}, "one arm has nothing to tune"
    assert planned(plan(tmp_path, search_seeds=2))["search"] == 2 * (4 + 1)


def test_plain_lines_say_it(half_done: Path) -> None:
    found = CliRunner().invoke(status.main, [str(half_done)])
    assert found.exit_code == 0 and "study: nobody drives it" in found.stdout
    assert "4/9 trainings, 1 interrupted, 1 failed, about 18 s left" in found.stdout
    assert "epoch 1/2" in found.stdout and "nonfinite:loss" in found.stdout


def test_trials_that_break_a_constraint_are_counted_with_it(tmp_path: Path) -> None:
    asked = plan(tmp_path, constraints=("clean_accuracy >= 0.6", "robust_cvar <= 0.45"))
    queue = Queue(asked, Ledger(asked.request.storage, asked.request.study))
    while (row := queue.take()) is not None:
        queue.done(row["training"], pretend(row["job"]), "", epochs=2)
    tables.write_facts(asked, queue.ledger, ended=True)
    queue.ledger.engine.dispose()
    found = told(tmp_path / "study")["standing"]
    assert found["trials"] == {"INFEASIBLE": 5} and found["broken"]["clean_accuracy >= 0.6"] == [5, 0.5]
    said = CliRunner().invoke(status.main, [str(tmp_path / "study")]).stdout
    assert "  infeasible  5 of 5 trials break clean_accuracy >= 0.6 (val), the nearest with 0.5\n" in said
    assert json.loads((tmp_path / "study/study.json").read_text())["constraints"] == list(map(str, asked.constraints))


def test_what_a_dead_driver_left_is_interrupted_and_what_a_living_one_has_runs(half_done: Path) -> None:
    facts = json.loads((half_done / "study.json").read_text())
    (half_done / "study.json").write_text(json.dumps(facts | {"command": "python -m absld_search.run x --trials 4"}))
    dead = CliRunner().invoke(status.main, [str(half_done)]).stdout
    assert "1 interrupted" in dead and "running" not in dead
    assert dead.splitlines()[-1].endswith("goes on where it stopped: python -m absld_search.run x --trials 4")
    lease = ownership.Lease(sqlite_url(half_done / "study.db"), "study")
    lease.acquire()
    alive = CliRunner().invoke(status.main, [str(half_done)]).stdout
    lease.release()
    assert "4/9 trainings, 1 running" in alive and "interrupted" not in alive and "not finished" not in alive


def test_what_passes_is_one_line_on_a_terminal_and_rare_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = plan(tmp_path)
    progress = Progress(asked, Ledger(asked.request.storage, asked.request.study))
    for number in range(3):
        progress.passing(f"epoch {number}")
    assert capsys.readouterr().out == "epoch 0\n", "not one a second in a log"
    progress.console = Console(file=sys.stdout, force_terminal=True, width=40)
    progress.passing("epoch 3, a line that is longer than the terminal is wide")
    assert capsys.readouterr().out.count("\n") == 0


def test_a_study_that_goes_on_says_first_what_is_done(half_done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = plan(half_done.parent)
    ledger = Ledger(asked.request.storage, asked.request.study)
    more = Queue(asked, ledger).ready()
    Progress(asked, ledger).resumed(more)
    assert capsys.readouterr().out == "4 of 9 trainings are done, continuing\n"


def test_the_time_left_counts_what_a_training_has_behind_it_and_how_many_run_at_a_time(tmp_path: Path) -> None:
    asked = plan(tmp_path)
    ledger = Ledger(asked.request.storage, asked.request.study)
    queue, rows = Queue(asked, ledger), []
    for _ in range(3):
        rows.append(queue.take())
    queue.done(rows[0]["training"], pretend(rows[0]["job"]), "", epochs=2, seconds=10.0)

    def left(epochs: dict[str, int], slots: int = 1) -> float | None:
        return standing(ledger.trials(), ledger.trainings(), {}, planned(asked), epochs, slots=slots).left

    whole = 10.0 * (planned(asked)["search"] + planned(asked)["confirm"] - 1)
    assert left({}) == pytest.approx(whole / 2) and left({}, slots=4) == pytest.approx(whole / 4)
    assert left({rows[1]["training"]: 1, rows[2]["training"]: 2}) == pytest.approx((whole - 5.0 - 10.0) / 2)
    none_left = standing(ledger.trials(), ledger.trainings(), {}, {}, {row["training"]: 2 for row in rows[1:]})
    assert "0 s left" not in lines(none_left)[0]


def test_what_runs_counts_where_its_log_is_elsewhere(half_done: Path) -> None:
    """With --store trainings lie on the machines that compute them: the ledger alone knows that they run."""
    shutil.rmtree(half_done / "trainings")
    found = CliRunner().invoke(status.main, [str(half_done)])
    assert found.exit_code == 0 and "4/9 trainings, 1 interrupted" in found.stdout
    assert "of 2 epochs, none heard of yet" in found.stdout and "starting" not in found.stdout


def test_a_finished_study_has_nothing_left(study: Path) -> None:
    found = told(study)
    assert found["standing"]["done"] == found["standing"]["total"] == 7 + 4 * 2 and not found["driver"]
    assert "nothing left" in lines(look(study).standing)[0]


def test_a_study_that_has_ended_planned_what_it_has(half_done: Path) -> None:
    """Arms that share a configuration or have failed leave fewer trainings than were counted on: not for ever."""
    asked = plan(half_done.parent)
    tables.write_facts(asked, Ledger(asked.request.storage, asked.request.study), ended=True)
    assert told(half_done)["standing"]["stages"] == {"search": [4, 5]}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_looking_changes_nothing_and_brings_nothing_up(half_done: Path) -> None:
    """An older schema, without leases and without the column that version 2 added, stays as it is and is read."""
    with sqlite3.connect(half_done / "study.db") as connection:
        connection.execute("DROP TABLE IF EXISTS absld_leases")
        connection.execute("ALTER TABLE absld_trainings DROP COLUMN losses")
        connection.execute("UPDATE absld_facts SET value = '\"1\"' WHERE key = 'schema_version'")
    connection.close()
    before = {path: digest(path) for path in half_done.rglob("*") if path.is_file()}
    assert told(half_done)["standing"]["done"] == 4
    assert {path: digest(path) for path in half_done.rglob("*") if path.is_file()} == before


def test_a_driver_in_the_middle_of_writing_is_no_obstacle_and_is_not_held_up(half_done: Path) -> None:
    driver = sqlite3.connect(half_done / "study.db", timeout=0, isolation_level=None)
    driver.execute("BEGIN IMMEDIATE")
    driver.execute("UPDATE absld_trainings SET attempts = attempts + 1")
    assert told(half_done)["standing"]["done"] == 4
    driver.execute("COMMIT")  # with timeout 0 it would fail, had the reader kept a lock
    driver.close()


def test_who_drives_it_is_said_while_he_lives(half_done: Path) -> None:
    lease = ownership.Lease(sqlite_url(half_done / "study.db"), "study")
    lease.acquire()
    assert told(half_done)["driver"].startswith(f"process {os.getpid()} on ")
    lease.release()
    assert told(half_done)["driver"] == ""


def test_what_is_no_study_is_said(tmp_path: Path) -> None:
    for folder, message in ((tmp_path / "absent", "no folder"), (tmp_path, "no study.db")):
        found = CliRunner().invoke(status.main, [str(folder)])
        assert found.exit_code == 2 and message in found.stderr and not list(tmp_path.iterdir())
    (tmp_path / "study.db").write_bytes(b"<html>" * 1000)
    found = CliRunner().invoke(status.main, [str(tmp_path)])
    assert found.exit_code == 2 and "cannot be read" in found.stderr and len(found.stderr.splitlines()) == 1


def test_a_torn_log_counts_up_to_its_last_whole_line(tmp_path: Path) -> None:
    assert last_epoch(tmp_path) == 0
    (tmp_path / "epochs.jsonl").write_bytes(b'{"epoch": 7, "metrics": {}}\n{"epo\xff')
    assert last_epoch(tmp_path) == 7


def test_what_the_gpu_tool_says_is_read_and_what_it_does_not_know_is_a_dash() -> None:
    table = "0, 87, 11540, 81920\n1, [N/A], 0, 81920\nnonsense\n"
    assert gpu_use.parsed(table) == ["GPU 0    87 %, 12.1 of 85.9 GB", "GPU 1    – %, 0.0 of 85.9 GB"]


DISPLAY = """
import sys, time
from pathlib import Path
from absld_search.search.ledger import Ledger
from absld_search.search.progress import Progress
from absld_search.search.queue import Queue
from tests.search.requests import plan, pretend

asked = plan(Path(sys.argv[1]))
ledger = Ledger(asked.request.storage, asked.request.study)
queue = Queue(asked, ledger)
with Progress(asked, ledger) as progress:
    for number in range(3):
        row = queue.take()
        progress.started(row)
        progress.epoch(row["training"], 1, {})
        if number < 2:
            for trial in queue.done(row["training"], pretend(row["job"]), "", epochs=2, seconds=4.0):
                progress.trial_done(trial)
            progress.training_done({**row, "state": "COMPLETE"})
    progress.say("a line that stays")
    time.sleep(1.2)  # twice the time between two drawings
"""


def displayed(folder: Path, terminal: bool) -> str:
    """What the display of a driver writes, to a real terminal (a pseudo-terminal of 100 columns) or to a pipe."""
    command = [sys.executable, "-c", DISPLAY, str(folder)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        environment.pop(name, None)
    if not terminal:
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:
        pass  # its other end has been closed
    os.close(ours)
    assert process.wait(60) == 0, written
    return written.decode()


def test_a_terminal_gets_a_live_display_and_a_pipe_plain_lines(tmp_path: Path) -> None:
    on_terminal, in_pipe = displayed(tmp_path / "terminal", True), displayed(tmp_path / "pipe", False)
    assert "\x1b[" in on_terminal and "━" in on_terminal, "drawn again in place, with a bar"
    assert "2/9 trainings, 1 running" in on_terminal and "best worst class" in on_terminal
    assert "of 2 complete trials" in on_terminal and "epoch 1/2" in on_terminal
    assert "a line that stays" in on_terminal
    assert "\x1b" not in in_pipe and "━" not in in_pipe
    assert in_pipe.count("2/9 trainings") == 1 and "a line that stays" in in_pipe
