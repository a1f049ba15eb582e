"""What bfloat16 costs is said of the mean, the worst class and the worst fifth, with paired intervals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from absld_search.core import evaluation
from benchmarks import precision


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    fp32, bf16 = [0.71, 0.70, 0.73, 0.69], [0.72, 0.68, 0.73, 0.70]
    found = precision.summary("x", fp32, bf16)
    wanted = stats.ttest_rel(bf16, fp32).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high))


def test_worst_class_and_cvar_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "STEPS", 1)
    precision.main(["--short", "--workload", "digits-smoke", "--out", str(tmp_path)])
    found = {row["metric"]: row for row in json.loads((tmp_path / "precision.json").read_text())["summary"]}
    printed = capsys.readouterr().out
    for name in ("worst_class_robust_accuracy", "robust_cvar"):
        assert found[name]["low"] <= found[name]["difference"] <= found[name]["high"] and name in printed
