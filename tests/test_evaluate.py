"""The door that measures any checkpoint: what it writes, what it refuses, and that it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from absld_search import evaluate
from absld_search.core import metrics, models, results, verdicts

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/evaluate.schema.json").read_text())
ATTACKS = ("clean", "fgsm", "pgd20", "cw", "apgd-ce")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(evaluate.main, [str(word) for word in words])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = models.build("cnn-8", 10, 1, 0).state_dict()
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def asked(checkpoint: Path, *more: object) -> Result:
    return invoke(checkpoint, "--workload", "digits", "--attacks", ",".join(ATTACKS), "--images", 40, *more)


def test_writes_what_the_schema_says_and_the_images_recompute_it(checkpoint: Path, tmp_path: Path) -> None:
    found = asked(checkpoint, "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    content = json.loads((tmp_path / "out/evaluation.json").read_text())
    jsonschema.validate(content, SCHEMA, jsonschema.Draft202012Validator)
    assert (
        list(content["attacks"]) == ["clean", "fgsm", "pgd20", "cw20", "apgd-ce"] and content["strongest"] == "apgd-ce"
    )
    table = pq.ParquetFile(tmp_path / "out/images.parquet").read()
    assert table.schema.equals(results.SHARDS["images"])
    rows = table.to_pandas()
    for name, numbers in content["attacks"].items():
        of = rows[rows.attack == name]
        again = metrics.summary("clean", of.correct, of.label, 10)
        assert numbers["accuracy"] == again["clean_accuracy"] and numbers["cvar"] == again["clean_cvar"]
    both = rows.groupby("image").correct.all()
    assert content["conjunction"]["accuracy"] == both.mean()
    assert sum(entry["n"] for entry in content["classes"]) == 40
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "images.parquet"}


def test_intervals_hold_their_estimates_and_missing_classes_are_named(checkpoint: Path, tmp_path: Path) -> None:
    found = asked(checkpoint, "--out", tmp_path / "all", "--images", 200)
    content = json.loads((tmp_path / "all/evaluation.json").read_text())
    assert content["classes_without_images"] == [] and "without images" not in found.output
    for numbers in (*content["attacks"].values(), content["conjunction"]):
        for name, (low, high) in numbers["intervals"].items():
            assert 0 <= low <= numbers[name] <= high <= 1, name
        assert numbers["worst_class_accuracy"] <= numbers["worst_class_debiased"]
        assert numbers["intervals"]["accuracy"][1] - numbers["intervals"]["accuracy"][0] < 0.2
    found = asked(checkpoint, "--out", tmp_path / "few", "--images", 5)
    few = json.loads((tmp_path / "few/evaluation.json").read_text())
    there = {entry["name"] for entry in few["classes"] if entry["n"]}
    assert len(few["classes_without_images"]) >= 5 and not there & set(few["classes_without_images"])
    assert f"classes without images: {few['classes_without_images'][0]}" in found.output


def test_schema_refuses_what_is_wrong(checkpoint: Path, tmp_path: Path) -> None:
    asked(checkpoint, "--out", tmp_path / "out")
    content = json.loads((tmp_path / "out/evaluation.json").read_text())
    for name, value in (("split", "train"), ("eps", 0.03), ("images", 0), ("unheard_of", 1)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, name: value}, SCHEMA, jsonschema.Draft202012Validator)


def test_pt_with_wrapper_and_prefix_gives_the_same_numbers(checkpoint: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(checkpoint)
    other = tmp_path / "released.pt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, other)
    for path, out in ((checkpoint, "a"), (other, "b")):
        assert asked(path, "--out", tmp_path / out).exit_code == 0
    one, two = (json.loads((tmp_path / out / "evaluation.json").read_text()) for out in "ab")
    assert one["attacks"] == two["attacks"] and one["sha256"] != two["sha256"]


def test_another_evaluation_in_the_folder_is_kept_and_a_free_one_named(checkpoint: Path, tmp_path: Path) -> None:
    asked(checkpoint, "--out", tmp_path / "out", "--images", 5)
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    found = invoke(checkpoint, "--out", tmp_path / "out", "--images", 6)
    assert found.exit_code == 2 and f"as --out {tmp_path / 'out-2'}" in found.stderr
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == before and not (tmp_path / "out-2").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attacks", "pdg20"], "Did you mean 'pgd20'"),
        (["--attacks", ","], "names no attack"),
        (["--attacks", "transfer"], "needs --source"),
        (["--workload", "digit"], "Did you mean 'digits'"),
        (["--model", "cnn-12"], "read as a cnn-12; --model names another network"),
    ],
)
def test_bad_words_exit_with_2_before_anything_is_created(
    checkpoint: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    found = invoke(checkpoint, "--out", tmp_path / "out", *words)
    assert found.exit_code == 2 and said in found.output, found.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["/proc/nope", "net.safetensors/below"])
def test_an_out_that_cannot_be_written_is_refused_by_its_name(checkpoint: Path, tmp_path: Path, where: str) -> None:
    found = invoke(checkpoint, "--out", tmp_path / where)
    assert found.exit_code == 2 and f"error: --out: nothing can be written in {tmp_path / where} (" in found.stderr
    assert found.stdout == ""


def test_a_missing_or_poisoned_checkpoint_is_refused(tmp_path: Path) -> None:
    found = invoke(tmp_path / "none.pt")
    assert found.exit_code == 2 and "is not there" in found.output
    state = models.build("cnn-8", 10, 1, 0).state_dict()
    state["linear.bias"][0] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    found = invoke(tmp_path / "nan.safetensors", "--out", tmp_path / "out")
    assert found.exit_code == 2 and "weight linear.bias is not finite" in found.output


def test_a_seed_changes_the_start_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert asked(checkpoint, "--out", tmp_path / out, "--seed", seed).exit_code == 0
    tables = {out: pq.ParquetFile(tmp_path / out / "images.parquet").read().to_pandas() for out in "abc"}
    assert tables["a"].equals(tables["b"])
    clean = {out: table[table.attack == "clean"] for out, table in tables.items()}
    assert np.array_equal(clean["a"].correct, clean["c"].correct)


def test_a_sigterm_is_75_and_the_same_command_goes_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command, told to end when it has put away its first verdicts."""
    words = ["--workload", "digits", "--attacks", "pgd20,apgd", "--images", 200, "--out", tmp_path / "out"]
    line = [sys.executable, "-m", "absld_search.evaluate", *map(str, (checkpoint, *words))]
    environment = {**os.environ, "ABSLD_FAULT": "file.after_rename:1:term"}
    ended = subprocess.run(line, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True)
    assert ended.returncode == 75, ended.stderr
    assert "are kept; run the same command again to continue" in ended.stderr and "Traceback" not in ended.stderr
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(kept) == 1 and kept.pop().endswith(".verdicts.json")
    attacked, put = list[str](), verdicts.Store.put
    monkeypatch.setattr(
        verdicts.Store, "put", lambda self, stage, *rest: attacked.append(stage) or put(self, stage, *rest)
    )
    assert invoke(checkpoint, *words).exit_code == 0
    assert attacked and not any("pgd20" in stage for stage in attacked), "what was kept is not attacked again"
    assert invoke(checkpoint, *words[:-1], tmp_path / "whole").exit_code == 0
    again, whole = (json.loads((tmp_path / out / "evaluation.json").read_text()) for out in ("out", "whole"))
    assert again == whole
