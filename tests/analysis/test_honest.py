"""What must be said beside a number: that it proves nothing, of how many seeds it is, and where it has no spread."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from absld_search.core import results
from absld_search.search import stats
from analysis import answer, cells, export, figures, load_study, report, tables
from tests.analysis.test_export import exportable
from tests.study_folder import write_study

HOPELESS = {"dual": -0.9, "product": -0.9}  # every class far below 0: next to nothing is ever right


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("runs") / "study", workload="digits-smoke", seeds=2, trials=4)
    report.write(folder)
    return folder


def test_every_form_of_a_smoke_run_says_that_it_proves_nothing(smoke: Path) -> None:
    shown = CliRunner().invoke(tables.main, [str(smoke)]).stdout
    paper = CliRunner().invoke(tables.main, [str(smoke), "--format", "latex"]).stdout
    own = (smoke / "report" / "tables.tex").read_text()
    assert "its numbers mean nothing" in shown and "its numbers mean nothing" in paper
    assert own.count("its numbers mean nothing") == own.count(r"\caption")
    for name in ("arms", "differences", "classes", "costs", "trials"):
        rows = list(csv.DictReader((smoke / "report" / "csv" / f"{name}.csv").open()))
        assert {row["workload"] for row in rows} == {"digits-smoke"}


def test_an_exported_smoke_run_says_so(tmp_path: Path) -> None:
    folder = exportable(tmp_path / "study")
    for workload, said in (("digits", False), ("digits-smoke", True)):
        facts = results.read_facts(folder) | {"workload": workload}
        results.write_facts(folder, facts)
        target = tmp_path / workload
        assert ("mean nothing" in export.export(folder, "knee", target)["warning"]) is said
        assert ("mean nothing" in json.loads((target / "result.json").read_text())["warning"]) is said


def test_every_number_of_a_sheet_has_its_unit(smoke: Path) -> None:
    rows = list(csv.DictReader((smoke / "report" / "csv" / "arms.csv").open()))
    units = {row["measure"]: row["unit"] for row in rows}
    assert units["clean_accuracy"] == "fraction of images" and units["minutes"] == "minutes"
    assert units["apgd_nsd"] == "sd / mean" and all(
        0 <= float(row["mean"]) <= 1 for row in rows if "acc" in row["measure"]
    )


def test_a_mean_over_fewer_seeds_than_its_row_says_of_how_many(tmp_path: Path) -> None:
    """A seed without a hit has no NSD, which is a standard deviation over a mean of 0."""
    folder = write_study(tmp_path / "study", HOPELESS, seeds=3, trials=3)
    lucky = load_study(folder).seeds().query("apgd_accuracy > 0")
    assert lucky.empty, "the made-up arms are meant to be hopeless"
    first = next(iter((folder / "trainings").glob("*-s1000"))).name
    _give_a_hit(folder, first)
    found = answer.answer(report.loading.load(folder))
    heading, rows = cells.rows(found)
    nsd = {row[0]: row[heading.index("NSD")] for row in rows}
    arm = next(row.arm for row in found.rows if row.trial and first.startswith(_config(folder, row.trial)))
    assert nsd.pop(arm).endswith("(n = 1)") and set(nsd.values()) == {cells.MISSING}
    assert "a seed without a hit has no NSD" in cells.legend(found)
    paper = tables.table(results.load(folder))
    (mine,) = [row for row in paper.rows if row.method == arm]
    assert len(mine.cell("aa", "nsd") or mine.cell("apgd", "nsd")) == 1
    assert any(note.startswith(f"NSD of {arm}") and "1 of 3 seeds" in note for note in paper.notes)


def test_an_attack_that_some_trainings_lack_is_not_said_to_be_without_a_hit(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seeds=4, trials=4)
    path = folder / "results" / "images.parquet"
    table = pq.read_table(path)
    lacking = np.char.find(np.array(table["training"].to_pylist()), "-s1000") >= 0
    pq.write_table(table.filter(pa.array(~(lacking & (np.array(table["attack"]) == "apgd")))), path)
    assert not [note for note in tables.table(results.load(folder)).notes if note.startswith("NSD of")]


def _config(folder: Path, trial: str) -> str:
    return str(load_study(folder).trials().query("trial == @trial").config.iloc[0])


def _give_a_hit(folder: Path, training: str) -> None:
    """One image right under every attack in one training."""
    for path in (folder / "results" / "images.parquet", folder / "trainings" / training / "images.parquet"):
        table = pq.read_table(path)
        hit = (np.array(table["training"]) == training) & (np.array(table["image"]) == 0)
        column = pa.array(np.where(hit, True, table["correct"].to_numpy()))
        pq.write_table(table.set_column(table.column_names.index("correct"), "correct", column), path)


@pytest.mark.parametrize("hits", [[0] * 10, [0] * 9 + [1], [0, 0, 0, 0, 0, 0, 1, 1, 0, 2]])
def test_where_nothing_is_right_the_worst_class_is_not_lifted_above_the_mean(hits: list[int]) -> None:
    accuracy, n = np.array(hits) / 60, np.full(10, 60)
    assert 0 <= float(stats.debiased_worst(accuracy, n)) <= accuracy.mean() + 1e-9
    assert stats.worst_interval(accuracy, 60).estimate <= accuracy.mean() + 1e-9


def test_two_arms_in_which_nothing_varies_have_no_interval() -> None:
    never, labels = np.zeros((8, 20)), np.repeat([0, 1], 10)
    (found,) = stats.images.over_both(never, never, labels, [lambda at: at.mean(axis=-1)])
    assert found == (0, -np.inf, np.inf)


def test_two_arms_that_judge_alike_differ_by_nothing_for_certain() -> None:
    correct, labels = np.random.default_rng(0).random((8, 60)) < 0.5, np.repeat([0, 1], 30)
    (found,) = stats.images.over_both(correct, correct, labels, [lambda at: at.mean(axis=-1)])
    assert found == (0, 0, 0)


def test_a_report_that_is_read_by_half_ends_quietly(smoke: Path) -> None:
    words = [sys.executable, "-m", "analysis.report", str(smoke), "--format", "md"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # as `head` does when it has enough
        said = process.stderr.read()
        assert process.wait() == 0 and said == ""


def test_a_trial_shows_what_its_arm_keeps_where_another_arm_searches_it(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path / "study",
        arm_words={"dual": {}, "shared": {"beta": 3}, "product": {}},
        fixed={"teacher": "digits-wide"},
    )
    trials = load_study(folder).trials()
    assert trials.temperature_lr.notna().all() and "beta" not in trials, "no arm searches it: it is no column"
    path = folder / "results" / "trials.parquet"
    _drop_parameter(path, "shared", "temperature_lr")
    facts = results.read_facts(folder)
    assert load_study(folder).trials().query("arm == 'shared'").temperature_lr.isna().all()
    results.write_facts(folder, facts | {"arm_words": {**facts["arm_words"], "shared": {"temperature_lr": 0.0}}})
    found = load_study(folder).trials()
    assert (found.query("arm == 'shared'").temperature_lr == 0).all() and found.temperature_lr.notna().all()


def _drop_parameter(path: Path, arm: str, name: str) -> None:
    table = pq.read_table(path)
    texts = [
        json.dumps({key: value for key, value in json.loads(row["params"]).items() if row["arm"] != arm or key != name})
        for row in table.select(["arm", "params"]).to_pylist()
    ]
    pq.write_table(table.set_column(table.column_names.index("params"), "params", pa.array(texts)), path)


def test_a_folder_that_is_not_there_is_named_as_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_study(tmp_path / "nowhere")


def test_no_axis_of_accuracies_goes_below_nothing(tmp_path: Path) -> None:
    """Trials near 0, whose margin would: they stay in sight."""
    found = results.load(write_study(tmp_path / "study", {"dual": -0.09, "product": -0.1}, seeds=3, trials=12))
    worst = [value for value in found.trials["objective/worst_class_robust_accuracy"].to_pylist() if value is not None]
    assert 0 < min(worst) < 0.05 * max(worst), "the made-up trials are meant to be near 0"
    axes = figures.drawn(found)["pareto_front"].axes[0]
    assert 0 == axes.get_ylim()[0] < 100 * min(worst) and axes.get_xlim()[0] >= 0
    assert all(axes.get_ylim()[0] >= 0 for axes in figures.drawn(found)["spending"].axes)


def test_an_arm_in_which_nothing_has_an_effect_is_said(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", {"dual": 0.0, "often": -0.05}, trials=6, seeds=2)
    assert not answer.answer(results.load(folder)).notices
    trials = pq.read_table(folder / "results/trials.parquet")
    same = pa.array([0.5 if arm == "often" and state == "COMPLETE" else value for arm, state, value in zip(
        trials["arm"].to_pylist(), trials["state"].to_pylist(),
        trials["objective/robust_accuracy"].to_pylist(), strict=True)])  # fmt: skip
    for name in ("robust_accuracy", "worst_class_robust_accuracy"):
        place = trials.column_names.index(f"objective/{name}")
        trials = trials.set_column(place, trials.schema.field(place), same)
    pq.write_table(trials, folder / "results/trials.parquet")
    (said,) = answer.answer(results.load(folder)).notices
    assert said.startswith("Arm often: its trials, at 5 different settings, have the same values to the last digit")


def test_a_study_on_the_floor_is_said(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", HOPELESS, seeds=3, trials=4)
    assert any("every confirm training is at 0" in said for said in answer.answer(results.load(folder)).notices)
