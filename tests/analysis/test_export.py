"""A bundle holds what was stored, names what is wrong, and can be trained again to the bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from absld_search import reproduce
from absld_search.core import metrics, results
from absld_search.core.files import sha256_of
from analysis import export, load_study
from analysis import tables as paper_tables
from analysis.picking import on_val, pick, training_of, unconfirmed
from tests.study_folder import write_study


def invoke(command: Any, *words: object) -> Any:
    return CliRunner().invoke(command, [str(word) for word in words])


@pytest.fixture(scope="module")
def chosen(study: Path) -> str:
    return next(
        row["trial"] for row in results.load(study).trials.to_pylist() if row["chosen"] and row["arm"] == "dual"
    )


@pytest.fixture(scope="module")
def bundle(study: Path, chosen: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "bundle"
    found = invoke(export.main, study, "--pick", f"id:{chosen}", "--to", target)
    assert found.exit_code == 0, found.output
    return target


def test_export_then_reproduce_gives_the_same_weights_and_classes(bundle: Path) -> None:
    found = invoke(reproduce.main, bundle, "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["deterministic"] and told["weights_equal"] and told["largest_weight_difference"] == 0
    assert told["weights"]["here"] == sha256_of(bundle / "model.safetensors")
    assert {(row["split"], row["attack"]) for row in told["attacks"]} >= {("test", "clean"), ("test", "apgd")}
    assert all(row["classes_equal"] and row["differing"] == 0 for row in told["attacks"])
    assert told["environment"] == {} and not told["earlier"]


def test_the_knee_is_a_confirmed_trial_where_there_is_one_and_else_a_note_says_so(tmp_path: Path) -> None:
    searched = results.load(write_study(tmp_path / "searched", seeds=0))
    tables = results.load(write_study(tmp_path / "confirmed"))
    knee, passed_over = pick(tables, "knee"), pick(searched, "knee")
    assert knee["chosen"] and not passed_over["chosen"], "the joint front's knee is no arm's"
    assert f"knee, {passed_over['trial']}, was not confirmed" in unconfirmed(tables, "knee", None, knee)
    assert "was not confirmed" in unconfirmed(searched, "knee", None, passed_over)
    assert not unconfirmed(tables, f"id:{knee['trial']}", None, knee)


def exportable(folder: Path) -> Path:
    """A made-up study whose choice in dual also has a search seed, and whose trainings keep what an export takes."""
    write_study(folder, trials=4)
    stored = results.load(folder)
    [config] = [row["config"] for row in stored.trials.to_pylist() if row["chosen"] and row["arm"] == "dual"]
    searched = {**stored.trainings.to_pylist()[0], "training": f"{config}-s0", "config": config, "seed": 0}
    rows = stored.images.to_pandas().query(f"training == '{config}-s1000' and attack in ['clean', 'apgd-ce']")
    images = rows.assign(training=f"{config}-s0", split="val").to_dict("records")
    results.write_shard(folder / "trainings" / f"{config}-s0", [], [], images, {})
    trainings = [*stored.trainings.to_pylist(), {**searched, "stage": "search"}]
    results.combine(folder, stored.trials.to_pylist(), trainings, stored.facts["objectives"])
    for row in trainings:
        place = folder / "trainings" / row["training"]
        (place / "model.safetensors").write_bytes(row["training"].encode())
        told = {"key": row["training"], "hash": row["config"], "config": {"hyperparameters": {"eps": 0.15}}}
        results.write_json(place / "training.json", {**told, "environment": None})
    return folder


def test_a_seed_that_is_asked_for_is_the_one_that_is_exported(tmp_path: Path) -> None:
    study = exportable(tmp_path / "made")
    trial = pick(export.load(study), "knee", "dual")["trial"]
    found = invoke(export.main, study, "--pick", f"id:{trial}", "--seed", "1002", "--to", tmp_path / "third")
    assert found.exit_code == 0 and "note:" not in found.stdout, found.output
    told = json.loads((tmp_path / "third/result.json").read_text())["study"]
    assert (told["trial"], told["seed"], told["stage"]) == (trial, 1002, "confirm")
    assert (tmp_path / "third/model.safetensors").read_bytes().endswith(b"-s1002")


def test_a_search_seed_of_a_confirmed_trial_carries_the_note(tmp_path: Path) -> None:
    study = exportable(tmp_path / "made")
    found = invoke(export.main, study, "--arm", "dual", "--seed", "0", "--to", tmp_path / "bundle")
    assert found.exit_code == 0 and "note: this seed of dual-00" in found.stdout, found.output
    told = json.loads((tmp_path / "bundle/result.json").read_text())
    assert told["split"] == "val" and "is the search's" in told["study"]["note"]


def test_the_knee_is_the_choice_although_an_earlier_one_was_confirmed_too(tmp_path: Path) -> None:
    """More trials were searched, another one was chosen: both have complete confirm trainings."""
    tables = results.load(write_study(tmp_path / "grown", {"dual": 0.0}))
    best = pick(tables, "knee", "dual")
    front, names = best["trial"], [f"objective/{name}" for name in tables.facts["objectives"]]
    complete = [row for row in tables.trials.to_pylist() if row["state"] == "COMPLETE"]
    other = next(row for row in complete if all(row[name] < best[name] for name in names))
    rows = [row | {"chosen": row["trial"] == other["trial"]} for row in tables.trials.to_pylist()]
    again = [row | {"config": other["config"], "training": f"{other['config']}-s{row['seed']}"}
             for row in tables.trainings.to_pylist()]  # fmt: skip
    trainings = pa.Table.from_pylist([*tables.trainings.to_pylist(), *again], results.TRAININGS)
    tables = replace(tables, trials=pa.Table.from_pylist(rows, tables.trials.schema), trainings=trainings)
    knee = pick(tables, "knee", "dual")
    assert knee["trial"] == other["trial"] != front
    note = unconfirmed(tables, "knee", "dual", knee)
    assert f"the front's knee, {front}, is no arm's choice" in note
    overtaken = replace(
        tables, trials=pa.Table.from_pylist([r | {"chosen": False} for r in rows], tables.trials.schema)
    )
    assert pick(overtaken, "knee", "dual")["trial"] == front, "of the two that were confirmed, where none is chosen"


def test_an_earlier_reproduction_is_told_with_its_own_environment(bundle: Path, tmp_path: Path) -> None:
    """Asked again after an upgrade, nothing is trained: the versions are of whatever trained it, not of today."""
    other = tmp_path / "bundle"
    shutil.copytree(bundle, other)
    shutil.copytree(bundle.with_name("bundle.reproduction"), other.with_name("bundle.reproduction"))
    [file] = other.with_name("bundle.reproduction").glob("*/training.json")
    described = json.loads(file.read_text())
    described["environment"]["packages"]["torch"] = "0.4"
    file.write_text(json.dumps(described))
    found = invoke(reproduce.main, other)
    assert found.exit_code == 0, found.output
    there = json.loads((bundle / "environment.json").read_text())["trained"]["packages"]["torch"]
    assert f"other packages.torch: {there} there, 0.4 here" in found.stdout
    assert "trained by an earlier run of this command" in found.stdout and "weights  equal" in found.stdout


def test_other_weights_and_verdicts_are_told(bundle: Path, tmp_path: Path) -> None:
    """A reproduction that came out differently ends with 1 and says by how much."""
    import safetensors.numpy

    other = tmp_path / "bundle"
    shutil.copytree(bundle, other)
    shutil.copytree(bundle.with_name("bundle.reproduction"), other.with_name("bundle.reproduction"))
    weights = safetensors.numpy.load_file(other / "model.safetensors")
    first = next(name for name, value in weights.items() if value.ndim > 1)
    weights[first] = weights[first] + np.float32(0.5)
    safetensors.numpy.save_file(weights, other / "model.safetensors")
    refused = invoke(reproduce.main, other)
    assert refused.exit_code == 2 and "does not match the hash" in refused.stderr
    told = json.loads((other / "result.json").read_text()) | {"sha256": sha256_of(other / "model.safetensors")}
    (other / "result.json").write_text(json.dumps(told))
    found = invoke(reproduce.main, other)
    assert found.exit_code == 1 and "weights  DIFFER (largest difference 0.5" in found.stdout


def test_a_bundle_of_another_configuration_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Before anything is trained: a changed value, values that are none, a start that is not there."""
    for number, (change, message) in enumerate(CHANGES):
        other = tmp_path / f"bundle-{number}"
        shutil.copytree(bundle, other)
        stored = json.loads((other / "config.json").read_text())
        change(stored["config"])
        (other / "config.json").write_text(json.dumps(stored))
        found = invoke(reproduce.main, other)
        assert found.exit_code == 2 and message in found.stderr and len(found.stderr.splitlines()) == 1
        assert not other.with_name(f"{other.name}.reproduction").exists()


CHANGES: list[tuple[Any, str]] = [
    (lambda config: config["schedule"].update(epochs=3), "understands the configuration differently"),
    (lambda config: config.pop("schedule"), "holds no configuration (KeyError"),
    (lambda config: config["options"].update(init_from="absent.safetensors"), "absent.safetensors"),
    (lambda config: config.update(workload="no-such"), "workload 'no-such' is unknown"),
]


def test_the_json_holds_what_the_images_say(study: Path, bundle: Path, chosen: str) -> None:
    told = json.loads((bundle / "result.json").read_text())
    images = results._read_table(bundle / "images.parquet").to_pandas()
    attacked = images.query("split == 'test' and attack == 'apgd'")
    accuracy, n = metrics.class_accuracies(attacked.correct, attacked.label, 10)
    assert [row["accuracy"]["apgd"] for row in told["classes"]] == accuracy.tolist()
    assert [row["n"] for row in told["classes"]] == n.tolist()
    assert told["attacks"]["apgd"]["worst_class_accuracy"] == accuracy.min()
    assert told["split"] == "test" and told["study"]["trial"] == chosen and told["study"]["seed"] == 1000
    clean = images.query("split == 'test' and attack == 'clean'").correct.mean()
    assert float(told["clean_acc"]) == pytest.approx(100 * clean, abs=5e-3)
    environment = json.loads((bundle / "environment.json").read_text())
    assert environment["trained"]["packages"]["torch"] and environment["exported"]["torch"]
    assert "--smoke" in told["study"]["command"] or told["study"]["command"].startswith("python -m absld_search.run")


def test_an_older_training_is_exported_from_the_studys_words(study: Path, chosen: str, tmp_path: Path) -> None:
    copy = tmp_path / study.name
    shutil.copytree(study, copy)
    for file in copy.glob("trainings/*/training.json"):
        file.unlink()
    told = export.export(copy, f"id:{chosen}", tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    assert config["key"].endswith("-s1000") and config["config"]["test"] is True
    assert json.loads((tmp_path / "old/environment.json").read_text())["trained"] is None
    assert told["deterministic"] is False


def test_a_trial_that_was_not_confirmed_has_values_on_val_alone(study: Path, tmp_path: Path) -> None:
    trial = next(row for row in results.load(study).trials.to_pylist() if not row["chosen"] and row["arm"] == "dual")
    told = export.export(study, f"id:{trial['trial']}", tmp_path / "bundle")
    assert told["split"] == "val" and told["study"]["stage"] == "search"
    assert told["attacks"]["apgd-ce"]["cvar"] == pytest.approx(trial["objective/robust_cvar"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pick", "kneee"], "it must read knee"),
        (["--pick", "best:worst_class_robust_accurracy"], "Did you mean 'worst_class_robust_accuracy'"),
        (["--pick", "id:dual-00"], "Did you mean 'dual-00"),
        (["--pick", "id:0"], "Say one of dual-000"),
        (["--pick", "knee", "--arm", "duel"], "Did you mean 'dual'"),
        (["--pick", "knee", "--seed", "77"], "--seed 77"),
    ],
)
def test_refused_before_anything_is_created(study: Path, tmp_path: Path, words: list[str], message: str) -> None:
    found = invoke(export.main, study, *words, "--to", tmp_path / "bundle")
    assert found.exit_code == 2 and message in found.stderr and len(found.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_door_loads_what_only_the_search_has(study: Path) -> None:
    """A search's epochs and verdicts are many millions of rows: they are read when somebody asks for them."""
    whole, view = results.load(study), load_study(study)
    confirm = {row["training"] for row in whole.trainings.to_pylist() if row["stage"] == "confirm"}
    for loaded in (view.tables, export.load(study), paper_tables.load(study)):
        for name in ("epochs", "images"):
            assert set(getattr(loaded, name)["training"].to_pylist()) == confirm
            assert set(getattr(whole, name)["training"].to_pylist()) > confirm
    assert len(view.images()) == len(whole.images)
    searched = next(row["training"] for row in whole.trainings.to_pylist() if row["stage"] == "search")
    assert set(view.images([searched]).training) == {searched}


def test_what_is_no_study_and_what_is_no_bundle_is_said(study: Path, tmp_path: Path) -> None:
    assert "no study.json" in invoke(export.main, tmp_path, "--to", tmp_path / "x").stderr
    assert "is there already" in invoke(export.main, study, "--to", tmp_path).stderr
    found = invoke(reproduce.main, tmp_path)
    assert found.exit_code == 2 and "config.json cannot be read" in found.stderr


def test_picks_go_by_val(tmp_path: Path) -> None:
    """On a made-up study: the knee is the front's, the best is the highest, and test values play no part."""
    tables = results.load(write_study(tmp_path / "made"))
    rows = {row["trial"]: row for row in tables.trials.to_pylist()}
    assert pick(tables, "knee")["chosen"] and pick(tables, "knee", "shared")["chosen"]
    assert pick(tables, "id:product-004") == rows["product-004"]
    of_chosen = training_of(tables, pick(tables, "knee", "dual"))
    assert (of_chosen["seed"], of_chosen["stage"]) == (1000, "confirm")


def test_the_best_is_the_highest_on_val(study: Path) -> None:
    tables = results.load(study)
    rows = tables.trials.to_pylist()
    values = on_val(tables, [row["config"] for row in rows], "robust_accuracy")
    assert values == pytest.approx({row["config"]: row["objective/robust_accuracy"] for row in rows})
    assert values[pick(tables, "best:robust_accuracy")["config"]] == max(values.values())
    spread = on_val(tables, [row["config"] for row in rows], "robust_nsd")  # nan where every class is at 0
    assert spread[pick(tables, "best:robust_nsd")["config"]] == np.nanmin(list(spread.values()))
