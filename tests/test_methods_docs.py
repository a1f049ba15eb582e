"""Docs and search spaces that speak of all methods do so of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from absld_search import methods_card
from absld_search.core.config import TrialConfig
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import knobs
from absld_search.core.trial import run_trial
from search_spaces import controls, methods

ROOT = Path(__file__).parents[1]
ARMS = {f"{name}:{arm}": space.SPACE.words(arm) for name, space in (("methods", methods), ("controls", controls))
        for arm in space.SPACE.arms}  # fmt: skip


def test_the_cards_are_current(tmp_path: Path) -> None:
    assert (ROOT / "docs/METHODS.md").read_text(encoding="utf-8") == methods_card.markdown(), (
        "run python -m absld_search.methods_card"
    )
    out = tmp_path / "METHODS.md"
    for arguments, code in (["--check"], 1), ([], 0), (["--check"], 0):
        assert CliRunner().invoke(methods_card.main, [*arguments, "--out", str(out)]).exit_code == code
    out.write_text(out.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert CliRunner().invoke(methods_card.main, ["--check", "--out", str(out)]).exit_code == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_card_with_its_knobs(name: str) -> None:
    text = (ROOT / "docs/METHODS.md").read_text(encoding="utf-8")
    card = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert "Source: " in card and "Formula" in card and "Cost of a step" in card and "Needs" in card
    own = [knob for knob in knobs(METHODS[name]) if knob not in methods_card.COMMON]
    assert all(f"`{knob}`" in card for knob in own)


def test_the_comparison_names_every_method() -> None:
    assert {words["method"] for words in methods.SPACE.arms.values()} == set(METHODS)
    assert {"permuted", "norm_matched", "rslad"} <= set(controls.SPACE.arms)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains(arm: str, tmp_path: Path) -> None:
    """From words to numbers, on the smallest workload."""
    found = run_trial(TrialConfig.from_words(ARMS[arm], "digits-smoke"), tmp_path, lambda *_: None)
    assert 0 <= found["worst_class_robust_accuracy"] <= found["robust_accuracy"] <= 1
