"""The paper's layout: our numbers from the images, others' with their source, a dash for what is not known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from absld_search.core import results
from analysis import paper_rows, tables
from analysis.study import load_study
from tests.analysis.test_whole_report import EVIL, compiled, well_formed
from tests.study_folder import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("runs") / "temps", workload="cifar10", question="Is 5 % & $x_1$ enough?")


@pytest.fixture(scope="module")
def found(study: Path) -> tables.Table:
    return tables.table(results.load(study))


def test_our_cells_are_the_images(study: Path, found: tables.Table) -> None:
    images = load_study(study).images()
    config = load_study(study).trials().query("arm == 'dual' and chosen").config.iloc[0]
    rows = images[images.training.str.startswith(f"{config}-s") & (images.attack == "cw20")]
    classes = rows.groupby(["training", "label"]).correct.mean().unstack()
    worst = 100 * classes.min(axis=1)
    (dual,) = [row for row in found.rows if row.method == "dual"]
    assert dual.cell("cw20", "worst") == (f"{worst.mean():.1f}", f"{worst.std(ddof=1):.1f}")
    nsd = classes.std(axis=1, ddof=0) / classes.mean(axis=1)
    assert dual.cell("cw20", "nsd") == (f"{nsd.mean():.3f}", f"{nsd.std(ddof=1):.3f}")
    assert dual.seeds == 8 and dual.cell("fgsm", "average") == () == dual.cell("aa", "worst")


def test_reported_numbers_are_as_reported_and_name_their_source(found: tables.Table) -> None:
    rows = {row.method: row for row in found.rows}
    assert rows["TRADES+CFA (best, cfa)"].cell("aa", "worst") == ("26.5", "0.4")
    assert rows["FAAL, AT from TRADES (last, faal)"].cell("aa", "average") == ("45.10",)
    assert rows["DAFA (dafa)"].cell("aa", "average") == (), "its attack is not named, so it fills no column"
    assert rows["ABSLD (absld)"].values == {}, "its tables were not read"
    assert {row.source for row in found.rows} == {"ours", "absld", "cfa", "dafa", "faal"}
    notes = " ".join(found.notes)
    assert all(f"{source}: " in notes for source in ("absld", "cfa", "dafa", "faal"))


def test_the_metric_of_a_published_log_is_ours() -> None:
    """The class accuracies of FAAL's first logged run give the average, worst class and NSD of its row."""
    logged = np.array([0.552, 0.692, 0.316, 0.288, 0.299, 0.363, 0.384, 0.488, 0.546, 0.582])
    correct = np.arange(1000) < (1000 * logged).round()[:, None]  # (C, n): so many right in each class
    cells = paper_rows._summed(correct.reshape(1, -1), np.repeat(np.arange(10), 1000), 10)
    (row,) = [row for row in paper_rows.reported("cifar10") if row.method == "FAAL, AT from TRADES (last, faal)"]
    assert cells == {"average": ("45.1",), "worst": ("28.8",), "nsd": ("0.294",)}
    assert {part: float(cell[0]) for part, cell in cells.items()} == {
        part: float(row.cell("aa", part)[0]) for part in cells
    }


def test_every_row_has_every_cell(found: tables.Table) -> None:
    lines = [line for line in tables.markdown(found).splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {3 + 3 * 6 + 2}
    assert "nan" not in tables.markdown(found) and lines[0].count("Worst") == 6
    assert lines[2].count("–") >= 6  # FGSM and AutoAttack of our first arm


def test_digits_have_no_reported_rows(tmp_path: Path) -> None:
    made = tables.table(results.load(write_study(tmp_path / "study")))
    assert {row.source for row in made.rows} == {"ours"} and list(made.columns)[-1] == "APGD-CE+T"


def test_latex_is_well_formed(found: tables.Table, tmp_path: Path) -> None:
    """Its groups, environments, columns and special letters are counted, and where there is a LaTeX it is compiled."""
    text = tables.latex(found)
    well_formed(text)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    counts = {len(re.findall(r"(?<!\\)&", line)) for line in body[1:]}
    assert counts == {1 + 3 * 6} and r"5 \% \& \$x\_1\$" in text
    compiled(text, tmp_path / "made")


def test_words_that_somebody_chose_do_nothing_to_latex(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "evil", {EVIL: 0.0, "Δ": -0.2}, seeds=2, trials=4, question=EVIL)
    text = tables.latex(tables.table(results.load(folder)))
    assert r"\textasciicircum{}\#\textless{}\textgreater{}\textbar{}" in text
    well_formed(text)
    compiled(text, tmp_path / "made")


def test_the_command(study: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(tables.main, [str(study), "--format", "latex", "--to", str(tmp_path / "t.tex")])
    assert done.exit_code == 0 and (tmp_path / "t.tex").read_text().startswith("% needs")
    shown = CliRunner().invoke(tables.main, [str(study), "--ours-only"])
    assert shown.exit_code == 0 and "| dual |" in shown.stdout and "cfa" not in shown.stdout
    refused = CliRunner().invoke(tables.main, [str(tmp_path)])
    assert refused.exit_code == 2 and "no study.json" in refused.stderr
