"""The command people type: refusals, then one whole study on real processes."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from absld_search import run
from absld_search.core import metrics, results
from absld_search.search import fronts, tracking

ROOT = Path(__file__).parents[1]


def command(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "absld_search.run", *words]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=300)


REFUSALS = [
    (["ablation_dual_temp"], "Did you mean 'ablation_dual_temps'"),
    (["ablation_dual_temps", "--set", "temperature_mx=3"], "Did you mean 'temperature_max'"),
    (["ablation_dual_temps", "--set", "learning_rate=-0.1"], "learning_rate must be greater than 0"),
    (["ablation_dual_temps", "--set", "learning_rate"], "must read KEY=VALUE"),
    (["ablation_dual_temps", "--gpus-per-trial", "64"], "--gpus-per-trial 64"),
    (["ablation_dual_temps", "--workload", "digit"], "Did you mean 'digits'"),
    (["ablation_dual_temps", "--study", "../x"], "--study"),
    (["ablation_dual_temps", "--study", "<img>"], "--study"),
    (["ablation_dual_temps", "--trials", "0"], "--trials must be at least 1"),
    (["ablation_dual_temps", "--trails", "3"], "--trials"),
    (["ablation_dual_temps", "--trials", "many"], "--trials"),
    ([], "NAME is missing"),
    (["ablation_dual_temps", "--set", "learning_rate=fast"], "learning_rate must be a number, not 'fast'"),
    (["ablation_dual_temps", "--set", "learning_rate=nan"], "learning_rate must be finite"),
    (["ablation_dual_temps", "--set", "eps=8/0"], "eps must be a number"),
    (["ablation_dual_temps", "--set", "epochs=1.5"], "epochs must be a whole number"),
    (["ablation_dual_temps", "--set", "init_from=absent.safetensors"], "there is no file"),
    (["ablation_dual_temps", "--study", "a" * 65], "1 to 64 letters"),
    (["ablation_dual_temps", "--study", "a\nb"], "1 to 64 letters"),
    (["ablation_dual_temps", "--sampler", "tpee"], "Did you mean 'tpe'"),
    (["ablation_dual_temps", "--storage", "postgres://me@here/x"], "Did you mean 'postgresql+psycopg'"),
    (["ablation_dual_temps", "--storage", "no-url"], "--storage: the database cannot be opened"),
    (["ablation_dual_temps", "--workload", "cifar10", "--data-dir", "/nowhere"], "/nowhere"),
    (["ablation_dual_temps", "--address", "127.0.0.1:9"], "nothing answers there"),
]


@pytest.mark.parametrize("words", ["--workload digit", "--sampler tpee", "--stopping ashaa", "--study ../x", "--set a"])
def test_a_mistyped_name_is_refused_before_anything_heavy_is_imported(words: str, tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from absld_search.run import main\n"
        f"found = CliRunner().invoke(main, ['ablation_dual_temps', '--out', {str(tmp_path)!r}, *{words.split()!r}])\n"
        "assert found.exit_code == 2, found.output\n"
        "assert not {'torch', 'ray', 'optuna', 'sqlalchemy', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("words", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_refused_with_one_message_and_nothing_created(words: list[str], message: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = CliRunner().invoke(run.main, [*words, "--out", str(out)])
    assert found.exit_code == 2
    assert message in found.stderr and found.stdout == ""
    assert "Traceback" not in found.output
    assert not out.exists()


def test_a_home_in_which_nothing_can_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSLD_CACHE_DIR")
    monkeypatch.setenv("HOME", "/proc/nobody")  # where even root can write nothing
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    found = CliRunner().invoke(run.main, ["ablation_dual_temps", "--out", str(tmp_path / "out")])
    assert found.exit_code == 2 and "ABSLD_CACHE_DIR" in found.stderr
    assert not (tmp_path / "out").exists()


def test_an_out_in_which_nothing_can_be_written_is_named_as_it_was_asked_for() -> None:
    found = CliRunner().invoke(run.main, ["ablation_dual_temps", "--dry-run", "--out", "/proc/nope"])
    assert found.exit_code == 2
    assert found.stderr.startswith(
        "error: --out: nothing can be written in /proc/nope/ablation_dual_temps-digits (/proc: "
    )


@pytest.mark.parametrize("words", [REFUSALS[0][0], REFUSALS[1][0], REFUSALS[2][0], REFUSALS[4][0]])
def test_refused_by_the_real_command(words: list[str], tmp_path: Path) -> None:
    found = command(*words, "--out", str(tmp_path / "out"))
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.startswith("error: ") and len(found.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_list_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from absld_search.run import main\n"
        "found = CliRunner().invoke(main, ['--list']); assert found.exit_code == 0, found.output\n"
        "assert 'ablation_dual_temps' in found.output and 'digits' in found.output\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)


def test_dry_run_and_print_config_create_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    dry = CliRunner().invoke(run.main, ["absld", "--dry-run", "--out", str(out)])
    assert dry.exit_code == 0 and dry.stdout.count("absld-00") == 3
    secret = ["--tracking-uri", "postgresql://me:hunter%402@localhost/x?password=hunter3"]
    shown = command("ablation_dual_temps", "--print-config", "--out", str(out), *secret)
    assert shown.returncode == 0 and "hunter" not in shown.stdout + shown.stderr
    plan = json.loads(shown.stdout)
    assert list(plan["arms"]) == ["dual", "shared", "product", "rslad"]
    assert plan["arms"]["rslad"]["trials"] == 1 and plan["arms"]["dual"]["fingerprint"]["words.coupling"] == "dual"
    assert not out.exists()


def test_everything_is_there(study: Path) -> None:
    tables = results.load(study)
    assert len(tables.trials) == 2 + 2 + 2 + 1
    assert set(tables.trainings["state"].to_pylist()) == {"COMPLETE"}
    assert len(tables.trainings) == 7 + 4 * 2
    assert (study / "study.db").stat().st_mode & 0o077 == 0, "nobody else may read a study"
    for name in ("index.html", "answer.md", "answer.json", "front.png", "front.html"):
        assert (study / "report" / name).stat().st_size > 0
    assert not (study / "ray").exists() and not list(study.rglob("*.tmp"))
    assert not list(study.rglob("*.pkl"))


def test_fronts_of_parquet_optuna_and_mlflow_are_one(study: Path) -> None:
    tables = results.load(study)
    trials = tables.trials.to_pandas()
    objectives = list(tables.facts["objectives"])
    values = trials[[f"objective/{name}" for name in objectives]].to_numpy()
    joint = set(trials.trial[fronts.non_dominated(values, ["max", "max"])])
    per_arm: set[str] = set()
    for arm, rows in trials.groupby("arm"):
        mask = fronts.non_dominated(values[rows.index], ["max", "max"])
        on_front = set(rows.trial[mask])
        stored = optuna.load_study(study_name=f"{study.name}.{arm}", storage=f"sqlite:///{study / 'study.db'}")
        assert {f"{arm}-{trial.number:03d}" for trial in stored.best_trials} == on_front
        per_arm |= on_front
    assert set(trials.trial[trials.pareto]) == joint and set(trials.trial[trials.pareto_arm]) == per_arm
    assert mlflow_runs(study, "tags.pareto = 'true'") == joint
    assert mlflow_runs(study, "tags.pareto_arm = 'true'") == per_arm
    recomputed = recompute(tables, trials)
    assert np.array_equal(recomputed, values), "objectives from the stored images, to the last bit"


def recompute(tables: results.Tables, trials: pd.DataFrame) -> np.ndarray:
    images = tables.images.to_pandas().query("split == 'val' and attack == 'apgd-ce'")
    found = []
    for config in trials.config:
        rows = images[images.training == f"{config}-s0"]
        tail = metrics.lowest_mean(rows.groupby("label").correct.mean(), 0.2)
        found.append([tail, rows.correct.mean()])
    return np.array(found)


def mlflow_runs(study: Path, condition: str) -> set[str]:
    client = MlflowClient(tracking.store_uri(study.parent))
    experiment = client.get_experiment_by_name(study.name)
    return {found.info.run_name for found in client.search_runs([experiment.experiment_id], condition)}


def test_mlflow_has_the_whole_study(study: Path) -> None:
    tables = results.load(study)
    trials = set(tables.trials["trial"].to_pylist())
    assert mlflow_runs(study, "tags.`absld.kind` = 'trial'") == trials
    assert mlflow_runs(study, "tags.`absld.kind` = 'answer'") == {"answer"}
    client = MlflowClient(tracking.store_uri(study.parent))
    experiment = client.get_experiment_by_name(study.name)
    children = client.search_runs([experiment.experiment_id], "tags.`absld.kind` = 'training'")
    assert len(children) == len(tables.trainings)
    assert {child.info.status for child in children} == {"FINISHED"}
    curve = client.get_metric_history(children[0].info.run_id, "train/robust_accuracy/class_03")
    assert [point.step for point in curve] == [1, 2]
    chosen = tables.trials.to_pandas().query("chosen").trial.iloc[0]
    (root,) = client.search_runs([experiment.experiment_id], f"tags.`absld.key` = '{chosen}'")
    assert "test/worst_class_robust_accuracy" in root.data.metrics
    (answer,) = client.search_runs([experiment.experiment_id], "tags.`absld.kind` = 'answer'")
    assert {file.path for file in client.list_artifacts(answer.info.run_id)} >= {"front.png", "index.html", "bundle"}
    assert "pareto" not in answer.data.tags


def test_again_it_answers_from_what_is_there(study: Path) -> None:
    shutil.rmtree(study / "report/figures", ignore_errors=True)
    before = {path: path.stat().st_mtime_ns for path in study.glob("trainings/*/*")}
    found = command("ablation_dual_temps", "--smoke", "--out", str(study.parent))
    assert found.returncode == 0, found.stderr
    assert "worst class" in found.stdout
    made = {file.name for file in (study / "report/figures").iterdir()}
    assert made >= {"pareto_front.png", "pareto_front.pdf", "class_bars.png", "class_bars.pdf"}, "figures for papers"
    assert before == {path: path.stat().st_mtime_ns for path in study.glob("trainings/*/*")}


def test_a_report_that_fails_hides_no_finished_study(study: Path, tmp_path: Path) -> None:
    """A file stands where the report's folder would: one line, the study's own exit code, and MLflow hears of it."""
    copy = tmp_path / "runs"
    shutil.copytree(study.parent, copy)
    shutil.rmtree(copy / study.name / "report")
    (copy / study.name / "report").write_text("")
    found = command("ablation_dual_temps", "--smoke", "--out", str(copy))
    assert found.returncode == 0 and "Traceback" not in found.stderr, found.stderr
    [line] = [line for line in found.stderr.splitlines() if line.startswith("no report: ")]
    assert "python -m analysis.report" in line and "index.html" not in found.stdout
    client = MlflowClient(tracking.store_uri(copy))
    experiment = client.get_experiment_by_name(study.name)
    (answer,) = client.search_runs([experiment.experiment_id], "tags.`absld.kind` = 'answer'")
    assert answer.data.tags["mlflow.note.content"].startswith("no report: ")


def test_the_printed_link_opens_this_study_and_no_namesake(study: Path, tmp_path: Path) -> None:
    """A folder deleted and begun anew, or a second study on one server: the name belongs to the first in MLflow."""
    copy = tmp_path / "runs"
    shutil.copytree(study.parent, copy)
    with contextlib.closing(sqlite3.connect(copy / study.name / "study.db")) as ledger:
        ledger.execute("update absld_facts set value = ? where key = 'identity'", [json.dumps("0123456789abcdef")])
        ledger.commit()
    found = command("ablation_dual_temps", "--smoke", "--out", str(copy))
    assert found.returncode == 0, found.stderr
    [line] = [line for line in found.stdout.splitlines() if line.startswith("front ")]
    name = line.split()[-1]
    experiment = tracking.newest_experiment(tracking.store_uri(copy), name)
    tags = MlflowClient(tracking.store_uri(copy)).get_experiment(experiment).tags
    assert name == f"{study.name}-012345" and tags["absld.identity"] == "0123456789abcdef"


def test_a_changed_question_under_the_same_name_is_refused(study: Path) -> None:
    words = ["ablation_dual_temps", "--smoke", "--out", str(study.parent), "--set", "weight_decay=0.1"]
    found = CliRunner().invoke(run.main, words)
    assert found.exit_code == 2 and "weight_decay = not set in arm" in found.stderr


def test_a_changed_question_can_be_forked(study: Path) -> None:
    words = ["ablation_dual_temps", "--smoke", "--out", str(study.parent), "--set", "weight_decay=0.1", "--dry-run"]
    found = CliRunner().invoke(run.main, [*words, "--fork-study"])
    assert found.exit_code == 0, found.output
    assert f"of study {study.name}: this one is {study.name}-2" in found.stdout
    assert not study.with_name(f"{study.name}-2").exists()


def test_a_second_driver_is_told_who_holds_the_study(study: Path) -> None:
    from filelock import FileLock

    with FileLock(study / "driver.lock"):
        (study / "driver.json").write_text('{"pid": 12345, "host": "elsewhere", "since": "Monday"}')
        found = command("ablation_dual_temps", "--smoke", "--out", str(study.parent))
    (study / "driver.json").unlink()
    assert found.returncode == 4
    assert "process 12345 on elsewhere, since Monday" in found.stderr


def test_a_damaged_shard_is_trained_again(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(study.parent, copy)
    before = results.load(copy / study.name)
    lost = next((copy / study.name / "trainings").glob("*-s1000"))
    (lost / "images.parquet").write_bytes(b"")
    words = ["ablation_dual_temps", "--smoke", "--out", str(copy)]
    words += ["--storage", f"sqlite:///{copy / study.name / 'study.db'}"]
    assert command(*words).returncode == 75
    assert command(*words).returncode == 0
    after = results.load(copy / study.name)
    assert after.images.sort_by([(name, "ascending") for name in ("training", "split", "attack", "image")]).equals(
        before.images.sort_by([(name, "ascending") for name in ("training", "split", "attack", "image")])
    )
