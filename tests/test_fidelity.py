"""The study of rungs: its statistics have known answers, and its command goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from absld_search.core import evaluation
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.core.rungs import at
from absld_search.core.trial import run_trial
from absld_search.workloads import DIGITS, workload
from benchmarks import fidelity, fidelity_report, ranking
from benchmarks.fidelity import Study, Task
from benchmarks.fidelity_report import Found

VALUES = st.lists(st.integers(0, 9), min_size=3, max_size=40)
SMOKE = "digits-smoke"


@given(st.data())
def test_spearman_is_scipys_where_that_has_a_value(data: st.DataObject) -> None:
    first = np.array(data.draw(VALUES), float)
    second = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(first), max_size=len(first))), float)
    found = ranking.spearman(first, second)
    if np.ptp(first) and np.ptp(second):
        assert found == pytest.approx(stats.spearmanr(first, second).statistic)
        assert ranking.spearman(np.exp(first), -second) == pytest.approx(-found)
    else:
        assert found == 0


@given(VALUES, st.randoms())
def test_decisions(values: list[int], random: Any) -> None:
    truth = np.array(values, float)
    mixed = truth.copy()
    random.shuffle(mixed)
    assert ranking.regret(truth, truth) == 0 and ranking.survives(truth, truth) == 1
    assert 0 <= ranking.regret(mixed, truth) <= np.ptp(truth)
    assert ranking.survives(-truth, truth, share=1) == 1
    winner, entered = ranking.halving([mixed, truth])
    assert entered == [len(values), -(-len(values) // 3)]
    assert truth[winner] == truth[ranking.order(mixed)[: entered[1]]].max()


def test_halving_keeps_a_third() -> None:
    truth = np.random.default_rng(0).normal(size=27)
    assert ranking.halving([truth] * 3) == (int(truth.argmax()), [27, 9, 3])
    upside_down = ranking.halving([-truth, truth])[0]
    assert truth[upside_down] == np.sort(truth)[8], "the best of the worst third"


def test_intervals_know_when_there_is_nothing_to_know() -> None:
    truth, noise = np.arange(30.0), np.random.default_rng(1).normal(size=30)
    assert ranking.interval(lambda rows: ranking.spearman(truth[rows], truth[rows]), 30) == pytest.approx((1, 1))
    low, high = ranking.interval(lambda rows: ranking.spearman(truth[rows], noise[rows]), 30)
    assert low < 0 < high and high - low > 0.4


def study(folder: Path, seeds: int = 2) -> Study:
    return Study(workload(SMOKE), 6, tuple(range(seeds)), folder, Folders())


def test_more_configurations_extend_the_study() -> None:
    assert fidelity.configurations(DIGITS, 27)[:10] == fidelity.configurations(DIGITS, 10)


def made_up(study: Study, task: Task) -> dict[str, Any]:
    """A measurement whose value is the configuration's number, worse by what a rung lacks."""
    value = {name: (task.number + 1) / 10 - 0.01 * (task.way == "clock") for name in fidelity.STORED}
    val = {str(budget): value for budget in study.budgets if budget <= task.budget}
    return {"key": task.key(study), "seed": task.seed, "words": task.words, "val": val, "test": value}


def test_the_command_goes_on_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def measure(study: Study, task: Task) -> dict[str, Any]:
        if len(seen) == 5 and "stopped" not in seen:
            seen.append("stopped")
            raise KeyboardInterrupt
        seen.append(task.key(study))
        return made_up(study, task)

    monkeypatch.setattr(fidelity, "measure", measure)
    monkeypatch.setattr(ranking, "TIMES", 10)
    monkeypatch.setattr(fidelity.teacher_making, "ensure_teacher", lambda *_: None)
    asked = ["--workload", SMOKE, "--configs", "6", "--seeds", "2", "--lines", str(tmp_path)]
    asked += ["--image", str(tmp_path / "picture.png"), "--out", str(tmp_path / "out")]
    assert fidelity.main([*asked, "--report-only"]) == 2
    assert "holds no seed whole yet" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        fidelity.main(asked)
    with open(study(tmp_path).file, "a") as handle:
        handle.write('{"key": "torn')
    capsys.readouterr()
    assert fidelity.main(asked) == 0
    found = capsys.readouterr().out
    keys = [key for key in seen if key != "stopped"]
    assert set(keys) == {task.key(study(tmp_path)) for task in fidelity.tasks(study(tmp_path))}
    assert len(keys) == len(set(keys)), "nothing is trained twice"
    assert "| compressed | 1 | 1.00 [1.00, 1.00] |" in found
    assert "| full | 12 | 0.0 | 0.0 | 0.0 |" in found
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "out" / "fidelity.json").read_text())["configs"] == 6
    assert fidelity.main([*asked, "--report-only"]) == 0
    assert len(keys) == len([key for key in seen if key != "stopped"])


def test_whole_trainings_of_further_seeds_are_truth(tmp_path: Path) -> None:
    """The rungs of seed 0 are held against seeds that they do not share."""
    asked = study(tmp_path, seeds=3)
    for task in fidelity.tasks(asked):
        line = made_up(asked, task)
        line["test"] = {name: value + task.seed for name, value in line["test"].items()}
        if task.seed == 0 or (task.seed == 2 and task.way == "full"):
            with open(asked.file, "a") as handle:
                handle.write(json.dumps(line) + "\n")
    found = fidelity.collected(asked)
    assert (found.seeds, found.ended) == ((0,), (0, 2))
    numbers = np.arange(1, 7) / 10
    assert found.truth("robust_cvar", 0) == pytest.approx(numbers + 2)
    assert found.cheap("clock", 1, "robust_cvar")[3:, 0] == pytest.approx(numbers[3:] - 0.01)


def test_a_rung_that_favours_a_knob_is_found_out() -> None:
    knob, rng = np.arange(40.0), np.random.default_rng(0)
    found = Found("digits", 40, (0,), (0, 1), (1, 3), {"learning_rate": knob})
    for number in range(40):
        truth, noise = rng.normal(), rng.normal() / 10
        for way, value in (("fair", truth + noise), ("biased", truth + knob[number] / 10)):
            found.put(way, 1, number, 0, {"robust_cvar": value})
        for seed in (0, 1):
            found.put("full test", 3, number, seed, {"robust_cvar": truth})
    fair, biased = (fidelity_report._tilt(found, way, 1, "robust_cvar", "learning_rate") for way in ("fair", "biased"))
    assert biased["interval"][0] > 0.5 and fair["interval"][0] < 0 < fair["interval"][1]


def test_a_failed_training_ranks_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nan(*_: object) -> dict[str, Any]:
        raise fidelity.NonFinite("loss", 3)

    monkeypatch.setattr(fidelity, "_looked_at", nan)
    found = fidelity.measure(study(tmp_path), Task("full", 0, 2, {"method": "rslad"}, 0))
    assert found["failed"] == "nonfinite:loss@3" and found["val"] == {}


def test_what_is_measured_is_what_a_training_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "STEPS", 1)
    asked, words = study(tmp_path), {"method": "rslad"}
    fidelity.teacher_making.ensure_teacher(asked.setting, "trades-wide", "cpu", lambda line: None, Folders())
    for way, schedule in (("full", {}), ("trunk", {"schedule": "wsd"})):
        config = TrialConfig.from_words({**words, **schedule}, SMOKE)
        for budget in (1, 2) if way == "trunk" else (2,):
            found = fidelity.measure(asked, Task(way, 0, budget, words, 0))
            plain = run_trial(at(config, budget), tmp_path / way / str(budget), lambda *_: None)
            assert found["val"][budget] == pytest.approx({name: plain[name] for name in fidelity.STORED}, abs=1e-6)
            assert found["key"] == at(config, budget).key
