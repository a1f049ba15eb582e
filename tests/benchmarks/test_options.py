"""`make bench` and `make bench-full`: every script takes the words that the Makefile gives it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.options import RESULTS

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
NAMES = re.search(r"^BENCHMARKS := (.*)$", MAKEFILE, re.M)[1].split()
RECIPES = {name: re.search(rf"^{name}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)[1] for name in ("bench", "bench-full")}


def words(target: str) -> list[str]:
    """What `make TARGET` says behind a script's name."""
    return re.search(r"benchmarks\.\$\$name (.*?)\$\(ARGS\)", RECIPES[target])[1].split()


@pytest.mark.parametrize("target", RECIPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_script_takes_the_words_of_make(name: str, target: str) -> None:
    told = importlib.import_module(f"benchmarks.{name}").asked(words(target))
    assert told.short == (target == "bench") and told.out == RESULTS


@pytest.mark.parametrize("name", NAMES)
def test_a_script_refuses_other_words(name: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"benchmarks.{name}").asked(["--quick"])


def test_a_short_study_of_rungs_leaves_the_pages_alone(tmp_path: Path) -> None:
    from benchmarks import fidelity

    told = fidelity.asked(["--short", "--out", str(tmp_path)])
    assert told.lines.is_relative_to(tmp_path) and told.image.is_relative_to(tmp_path)
    assert fidelity.asked([]).lines == fidelity.DOCS / "results/fidelity"
