"""A run of simulated trials says how the driver grows, and the page says what the kept runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.writing import filled
from benchmarks import scaling, scaling_page
from tests.cluster import postgres


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_run_is_kept_and_has_all_figures(tmp_path: Path, sampler: str, database: str) -> None:
    if database == "postgresql" and (reason := postgres.why_not()):
        pytest.skip(reason)
    words = ["--trials", "12", "--slots", "3", "--every", "4", "--through", "queue", "--sampler", sampler]
    more = ["--postgres"] if database == "postgresql" else []
    found = CliRunner().invoke(scaling.main, [*words, *more, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    (path,) = tmp_path.glob("*.json")
    assert path.stem == f"queue-{database}-{sampler}-12"
    run = json.loads(path.read_text())
    assert run["asks"] == 13, "a look that found nothing is no ask: 12 trials, and one seed to confirm"
    assert run["states"] == ["COMPLETE"] and [row["ended"] for row in run["marks"]] == [4, 8, 12]
    assert all(
        row[name] > 0 for row in run["marks"] for name in ("ask_p99_ms", "tell_p99_ms", "database_mb", "memory_mb")
    )
    text = scaling_page.section(run)
    assert f"12 trials, {sampler}, without Ray, {database}" in text and "8 to 12 trials" in text


def test_growth_leaves_the_first_line_out() -> None:
    marks = [
        {"ended": 1000 * n, "cpu_ms": 70 + 2 * n + 500 * (n == 1), "ask_p50_ms": 80, "database_mb": 10 + 4 * n,
         "memory_mb": 800 + 73 * n}
        for n in range(1, 11)
    ]  # fmt: skip
    said = scaling_page.growth(marks)
    assert "2,000 to 10,000 trials: +2.0 ms of the driver's CPU each for every thousand" in said
    assert "4.0 kB of the database a trial" in said and "73.0 kB of memory a trial" in said
    assert scaling_page.growth(marks[:2]) == ""


def test_the_page_says_what_the_kept_runs_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = scaling_page.PAGE.read_text()
    (tmp_path / "page.md").write_text(filled(page, "measured", "typed by hand"))
    monkeypatch.setattr(scaling_page, "PAGE", tmp_path / "page.md")
    scaling_page.fill()
    assert (tmp_path / "page.md").read_text() == page
