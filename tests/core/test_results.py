"""Tables survive writing and reading; what is half written, damaged or misshapen does not pass for a result."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from absld_search.core import files, results
from absld_search.core.results import combine, load, read_result, write_facts, write_shard

OBJECTIVES = {"worst_class_robust_accuracy": "max", "robust_accuracy": "max"}
EPOCHS = [{"training": "a-s0", "epoch": 1, "metric": "temperature_adv/class_03", "value": 1.25}]
CLASSES = [
    {"training": "a-s0", "split": "val", "attack": "pgd20", "class": 0, "n": 4, "accuracy": 0.25},
    {"training": "a-s0", "split": "val", "attack": "pgd20", "class": 1, "n": 0, "accuracy": None},
]
IMAGES = {
    "training": ["a-s0"] * 2, "split": ["val"] * 2, "attack": ["pgd20"] * 2,
    "image": [7, 1 << 40], "label": [0, 1], "correct": [True, False],
}  # fmt: skip
TRAINING = {
    "training": "a-s0", "config": "a", "seed": 0, "stage": "search", "state": "COMPLETE", "reason": "",
    "attempts": 1, "epochs": 1, "seconds": 0.5,
}  # fmt: skip
TRIAL = {
    "trial": "dual-000", "arm": "dual", "number": 0, "config": "a", "state": "COMPLETE", "reason": "", "params": "{}",
    "chosen": True, "pareto": True, "pareto_arm": True, "seeds": 1, "epochs": 2, "seconds": 0.5,
    "front_probability": 0.75, "objective/worst_class_robust_accuracy": 0.25, "objective/robust_accuracy": 0.5,
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    write_shard(tmp_path / "trainings" / "a-s0", EPOCHS, CLASSES, IMAGES, {"robust_accuracy": 0.5})
    write_facts(tmp_path, {"question": "größer?"})
    return tmp_path


def test_a_study_comes_back_as_it_was_written(study):
    assert combine(study, [TRIAL], [TRAINING], OBJECTIVES) == []
    tables = load(study)
    assert tables.facts == {"question": "größer?"}
    assert tables.trials.to_pylist() == [TRIAL]
    assert tables.trainings.to_pylist() == [TRAINING]
    assert tables.epochs.to_pylist() == EPOCHS
    assert tables.classes.to_pylist() == CLASSES
    assert tables.images.to_pydict() == IMAGES
    assert tables.images.schema.equals(results.SHARDS["images"])


@given(
    rows=st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), st.booleans()), max_size=20
    )
)
def test_images_of_any_ids_and_labels_come_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("study")
    columns = dict(zip(["image", "label", "correct"], zip(*rows, strict=True) if rows else ([], [], []), strict=True))
    same = {name: [value] * len(rows) for name, value in (("training", "k"), ("split", "test"), ("attack", "clean"))}
    write_shard(folder / "trainings" / "k", [], [], same | columns, {})
    write_facts(folder, {})
    combine(folder, [], [TRAINING | {"training": "k"}], OBJECTIVES)
    assert [(r["image"], r["label"], r["correct"]) for r in load(folder).images.to_pylist()] == rows


def test_a_folder_with_an_equals_sign_adds_no_column(tmp_path):
    folder = tmp_path / "rate=0.1"
    write_shard(folder / "trainings" / "a-s0", EPOCHS, CLASSES, IMAGES, {})
    write_facts(folder, {})
    combine(folder, [TRIAL], [TRAINING], OBJECTIVES)
    assert load(folder).epochs.column_names == results.SHARDS["epochs"].names


def test_a_result_is_read_only_where_it_is_whole(study):
    folder = study / "trainings" / "a-s0"
    assert read_result(folder) == {"robust_accuracy": 0.5}
    whole = (folder / "result.json").read_text()
    for damaged in (
        whole[:-5],
        "",
        "[]",
        "null",
        '{"result": 3, "files": {}}',
        '{"result": {}}',
        '{"files": 1}',
        "\x00",
    ):
        (folder / "result.json").write_text(damaged)
        assert read_result(folder) is None, damaged
    (folder / "result.json").unlink()
    assert read_result(folder) is None
    assert read_result(study / "nowhere") is None


@pytest.mark.parametrize("damage", ["cut", "removed", "overwritten"])
def test_a_damaged_shard_is_reported_and_its_training_no_longer_complete(study, damage):
    write_shard(study / "trainings" / "b-s0", [EPOCHS[0] | {"training": "b-s0"}], [], [], {})
    path = study / "trainings" / "a-s0" / "images.parquet"
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[:-10] if damage == "cut" else b"x" * len(content))
    trainings = [TRAINING, TRAINING | {"training": "b-s0", "config": "b"}]
    assert combine(study, [TRIAL], trainings, OBJECTIVES) == ["a-s0"]
    tables = load(study)
    states = {row["training"]: (row["state"], row["reason"]) for row in tables.trainings.to_pylist()}
    assert states["a-s0"][0] == "FAILED" and "damaged" in states["a-s0"][1]
    assert states["b-s0"] == ("COMPLETE", "")
    assert set(tables.epochs["training"].to_pylist()) == {"b-s0"}


def test_only_complete_trainings_are_combined(study):
    assert combine(study, [TRIAL], [TRAINING | {"state": "RUNNING"}], OBJECTIVES) == []
    assert load(study).images.num_rows == 0


def test_a_second_attempt_looks_incomplete_until_it_is_whole(study, monkeypatch):
    folder = study / "trainings" / "a-s0"

    def full_disk(*args):
        raise OSError("no space left")

    monkeypatch.setattr(results, "write_json", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_shard(folder, EPOCHS, CLASSES, IMAGES, {})
    assert read_result(folder) is None


def test_a_failed_write_leaves_the_old_file_and_no_other(study):
    combine(study, [TRIAL], [TRAINING], OBJECTIVES)
    before = {path: path.read_bytes() for path in sorted((study / "results").iterdir())}
    with pytest.raises(ValueError, match="trials"):
        combine(study, [{"trial": "dual-000"}], [TRAINING], OBJECTIVES)
    with pytest.raises(RuntimeError), files.replacing(study / "results" / "trials.parquet") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert sorted((study / "results").iterdir()) == list(before)
    assert (study / "results" / "trials.parquet").read_bytes() == before[study / "results" / "trials.parquet"]


def test_rows_that_do_not_fit_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="epochs.*metric"):
        write_shard(tmp_path, [{"training": "k", "epoch": 1, "value": 0.5}], [], [], {})
    with pytest.raises(ValueError, match="epochs.*colour"):
        write_shard(tmp_path, [EPOCHS[0] | {"colour": "red"}], [], [], {})
    with pytest.raises(ValueError, match="epochs.*'epoch'.*int32"):
        write_shard(tmp_path, [EPOCHS[0] | {"epoch": "first"}], [], [], {})
    with pytest.raises(ValueError, match="images.*'label'.*empty"):
        write_shard(tmp_path, [], [], IMAGES | {"label": [None, 1]}, {})
    with pytest.raises(ValueError, match="images.*split"):
        write_shard(tmp_path, [], [], {name: values for name, values in IMAGES.items() if name != "split"}, {})
    assert list(tmp_path.iterdir()) == []


def test_load_says_what_is_missing(study):
    with pytest.raises(FileNotFoundError, match="no results yet"):
        load(study)
    shutil.rmtree(study / "trainings")
    (study / "study.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a study folder"):
        load(study)


def test_facts_are_readable_json(study):
    assert json.loads((study / "study.json").read_text(encoding="utf-8")) == {"question": "größer?"}
