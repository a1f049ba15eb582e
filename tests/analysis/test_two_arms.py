"""A report of two arms that were picked: its words, figures and tables are of one attack and of one family of tests."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from absld_search.core import results
from absld_search.search import stats
from analysis import choosing, figures, sheets
from analysis.answer import answer
from analysis.cells import COMPARISON_LEGEND
from analysis.confirmed import confirmed
from tests.analysis.test_headline import rewrite
from tests.study_folder import write_study

ARMS = {"dual": 0.0, "shared": -0.2, "product": 0.005, "fixed": -0.01}


def written(folder: Path, arms: int, seeds: int) -> results.Tables:
    return results.load(write_study(folder, dict(list(ARMS.items())[:arms]), seeds=seeds, trials=4))


def test_an_attack_that_a_third_arm_lacks_leads_everywhere_or_nowhere(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", dict(list(ARMS.items())[:3]), seeds=6, trials=4)
    tables = rewrite(folder, lambda images: images[images.attack != "apgd"])  # one training of product
    assert answer(tables).headline.kind == "robust"
    found, shown = choosing.compared(tables, ["dual", "shared"]), choosing.restricted(tables, ["dual", "shared"])
    assert found.headline.kind == "apgd" and found.headline.trainings == 12
    assert {one.measure for one in found.comparisons} == {
        "apgd_cvar", "worst_class_apgd_accuracy", "apgd_accuracy",
    }  # fmt: skip
    alone = answer(results.load(write_study(tmp_path / "alone", {"dual": 0.0, "shared": -0.2}, seeds=6, trials=4)))
    for one, other in zip(found.comparisons, alone.comparisons, strict=True):
        assert (one.mean, one.p, one.low_both) == (other.mean, other.p, other.low_both)
    rows = list(csv.DictReader(io.StringIO(sheets.sheets(shown, found)["classes"])))
    assert {row["attack"] for row in rows} == {"apgd"}
    seeds = confirmed(shown)["shared"].values()
    hardest = sum(seed.attacked[9] for seed in seeds) / len(seeds)
    assert float(rows[-1]["accuracy"]) == pytest.approx(hardest)
    [axes] = figures.class_bars(shown).axes
    assert "APGD-CE+T" in axes.get_ylabel()
    assert choosing.compared(tables, ["dual", "product"]).headline.kind == "robust", "here one of the two lacks it"


@pytest.mark.parametrize(
    ("pair", "arms", "words"),
    [
        (("shared", "product"), 3, ("7 paired seeds where p is corrected for 3 comparison(s)", "can reach 0.047")),
        (("dual", "product"), 3, ("7 paired seeds where p is corrected for 2 comparison(s)", "can reach 0.031")),
        (("product", "dual"), 3, ("7 paired seeds where p is corrected for 2 comparison(s)", "can reach 0.031")),
        (("shared", "product"), 4, ("8 paired seeds where p is corrected for 6", "no p below 0.094 is possible")),
    ],
)
def test_the_seeds_that_a_decision_takes_are_those_of_the_pairs_own_family(
    pair: tuple[str, str], arms: int, words: tuple[str, str], tmp_path: Path
) -> None:
    found = choosing.compared(written(tmp_path / "s", arms, 7), pair)
    [said] = [caveat for caveat in found.caveats if "To decide at Holm p" in caveat]
    assert all(part in said for part in words), said
    assert (
        min(one.holm_p for one in found.comparisons) >= float(words[1].split()[2 if "reach" in words[1] else 3]) - 5e-4
    )
    assert "number of arms" not in f"{said} {COMPARISON_LEGEND}"


def test_the_power_of_a_picked_pair_is_of_its_own_differences_and_family(tmp_path: Path) -> None:
    tables = written(tmp_path / "s", 4, 7)
    measured = confirmed(tables)
    for pair, family in ((("dual", "product"), 3), (("shared", "product"), 6)):
        one, other = ([seed.measures["worst_class_apgd_accuracy"] for seed in measured[arm].values()] for arm in pair)
        sd = float(np.std(np.subtract(other, one), ddof=1))
        said = choosing.compared(tables, pair).power
        assert f"about {stats.seeds_to_decide(sd, 0.01, family)} paired seeds" in said
        assert f"seeds up to {100 * sd:.1f} points" in said
