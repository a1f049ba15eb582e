"""The face for notebooks: the same numbers as the report's, every pair of arms, and nothing heavy imported."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from absld_search.search import fronts
from absld_search.search.stats import paired
from absld_search.words import UsageError
from analysis import StudyView, choosing, load_study
from tests.study_folder import write_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    return load_study(write_study(tmp_path_factory.mktemp("runs") / "temps"))


def test_the_front_is_what_no_trial_beats(made: StudyView) -> None:
    trials = made.trials()
    complete = trials[trials.state == "COMPLETE"]
    mask = fronts.non_dominated(complete[list(made.objectives)].to_numpy(), ["max", "max"])
    assert set(made.front().trial) == set(complete.trial[mask])
    own = made.front("shared")
    assert set(own.arm) == {"shared"} and own[next(iter(made.objectives))].is_monotonic_decreasing
    assert "temperature_lr" in own and own.temperature_lr.between(0.01, 1).all()


def test_the_table_is_the_reports(made: StudyView) -> None:
    table, (row, *_) = made.table(), made.answer.rows
    assert list(table.index) == made.arms
    spread = row.measures["worst_class_apgd_accuracy"]
    shown = table.loc["dual", "worst_class_apgd_accuracy"]
    assert (shown["mean"], shown["sd"], shown["n"]) == (spread.mean, spread.sd, spread.n)
    seeds = made.seeds().query("arm == 'dual'").worst_class_apgd_accuracy
    assert seeds.mean() == pytest.approx(spread.mean) and seeds.std(ddof=1) == pytest.approx(spread.sd)
    classes = made.class_accuracies("dual").groupby("seed").accuracy.min()
    assert classes.to_numpy() == pytest.approx(seeds.to_numpy())


def test_comparisons_with_the_first_arm_are_the_answers(made: StudyView) -> None:
    for planned in made.answer.comparisons:
        row = made.compare(planned.against, planned.arm).loc[planned.measure]
        assert (row.difference, row.low, row.high, row.p) == (planned.mean, planned.low, planned.high, planned.p)
        assert (row.low_both, row.high_both) == (planned.low_both, planned.high_both)
        assert row.holm_p == planned.holm_p and row.decided == planned.decided


def test_another_pair_is_corrected_for_all_pairs(made: StudyView) -> None:
    frame, seeds = made.compare("shared", "product"), made.seeds().set_index(["arm", "seed"]).apgd_accuracy
    raw = {
        pair: paired((seeds[pair[1]] - seeds[pair[0]]).to_numpy()).p for pair in itertools.combinations(made.arms, 2)
    }
    row = frame.loc["apgd_accuracy"]
    assert row.p == raw["shared", "product"]
    below = sum(p < row.p for p in raw.values())
    assert row.holm_p >= min(1, row.p * (len(raw) - below)) - 1e-12 and row.holm_p > row.p
    back = made.compare("product", "shared").loc["apgd_accuracy"]
    assert (back.difference, back.low, back.high) == pytest.approx((-row.difference, -row.high, -row.low))


@pytest.mark.parametrize("pair", [*itertools.permutations(("dual", "shared", "product"), 2)])
def test_a_report_of_two_arms_and_a_notebook_say_the_same(made: StudyView, pair: tuple[str, str]) -> None:
    found = choosing.compared(made.tables, pair)
    shown = made.compare(*pair)
    assert [one.measure for one in found.comparisons] == list(shown.index) != []
    for one in found.comparisons:
        row = shown.loc[one.measure]
        assert (row.p, row.holm_p, row.decided) == (one.p, one.holm_p, one.decided)
    planned = "dual" in pair
    assert ("2 comparison(s) with dual" if planned else "all 3 pairs of arms") in found.caveats[0]


def test_words_that_are_wrong_are_named(made: StudyView, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'dual'"):
        made.compare("duel", "shared")
    with pytest.raises(UsageError, match="with itself"):
        made.compare("dual", "dual")
    with pytest.raises(UsageError, match="Did you mean 'shared'"):
        made.front("share")
    with pytest.raises(FileNotFoundError, match="no study.json"):
        load_study(tmp_path)


def test_an_unconfirmed_study_has_a_front_and_no_comparison(tmp_path: Path) -> None:
    found = load_study(write_study(tmp_path / "study", failed=["dual", "shared", "product"]))
    assert len(found.front()) and found.compare("dual", "product").empty and found.seeds().empty
    assert found.class_accuracies().empty and found.plot_classes() is None
    assert np.isnan(found.table().to_numpy(dtype=float)).all()


def test_figures_are_figures(made: StudyView) -> None:
    for figure in (made.plot_front(), made.plot_classes(), made.plot_temperatures()):
        assert isinstance(figure, Figure) and figure.axes


def test_it_imports_neither_ray_nor_torch(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", trials=3, seeds=2)
    code = (
        "import sys; from analysis import load_study\n"
        f"s = load_study({str(folder)!r}); s.front(); s.table(); s.compare('dual', 'product'); s.plot_front()\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
