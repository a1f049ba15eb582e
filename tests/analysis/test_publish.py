"""Kept studies and their pages: nothing typed by hand, nothing unfinished, the same pages from the same tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from absld_search.core import results
from absld_search.words import UsageError
from analysis import publish, readings
from analysis.answer import answer
from tests.study_folder import write_study

ARMS = {"dual": 0.0, "shared": -0.2, "product": 0.001}
WHERE = {"revision": "0123456789abcdef", "modified": False, "gpu": None, "processor": "A CPU", "python": "3.11.7"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished one, with where its trainings were computed."""
    folder = write_study(tmp_path_factory.mktemp("runs") / "temps", ARMS, trials=4, command="python -m x temps")
    for training in (folder / "trainings").iterdir():
        results.write_json(training / "training.json", {"environment": {**WHERE, "absld_search": "0.1.0"}})
    return folder


def published(to: Path, *studies: Path) -> None:
    assert publish.main([*map(str, studies), "--to", str(to)]) == 0


def test_a_page_is_made_again_from_what_is_kept_alone(study: Path, tmp_path: Path) -> None:
    published(tmp_path, study)
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.md")}
    assert set(first) == {"temps.md", "index.md"}
    for path in tmp_path.glob("*.md"):
        path.unlink()
    published(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.md")} == first
    page = first["temps.md"].decode()
    for shown in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (tmp_path / shown).is_file(), shown
    assert "revision 0123456789, A CPU" in page and "`python -m x temps`" in page


def test_the_index_says_what_the_answer_says(study: Path, tmp_path: Path) -> None:
    published(tmp_path, study)
    (row,) = [line for line in (tmp_path / "index.md").read_text("utf-8").splitlines() if "temps.md" in line]
    found = answer(results.load(study))
    (worst,) = [c for c in found.comparisons if c.arm == "shared" and c.measure == "worst_class_apgd_accuracy"]
    assert worst.decided and worst.mean < 0
    assert "shared worse than dual; product not told apart from dual" in row
    between = f"{readings.points(worst.low)} to {readings.points(worst.high)}"
    assert f"shared {readings.points(worst.mean)} ({between})" in row and "8 seeds, 60 images" in row


def test_numbers_of_a_reading_are_the_studys(study: Path) -> None:
    found = answer(results.load(study))
    text = readings.filled("{shared - dual.worst}; {dual.clean}; {dual.nsd}; {product - dual.tail}", found)
    parts = text.split("; ")
    (worst,) = [c for c in found.comparisons if c.arm == "shared" and c.measure == "worst_class_apgd_accuracy"]
    assert parts[0].startswith(readings.points(worst.mean)) and parts[0].endswith(f"to {readings.points(worst.high)})")
    clean = found.rows[0].measures["clean_accuracy"]
    assert parts[1] == f"{100 * clean.mean:.1f} ± {100 * clean.sd:.1f} %"
    assert parts[2] == f"{found.rows[0].measures['apgd_nsd'].mean:.3f} ± {found.rows[0].measures['apgd_nsd'].sd:.3f}"
    (tail,) = [c for c in found.comparisons if c.arm == "product" and c.measure == "apgd_cvar"]
    assert parts[3] == readings.difference(tail)
    for place, named in [("{dul.worst}", "dual"), ("{dual.wurst}", "worst"), ("{dual - shared.worst}", "not compare")]:
        with pytest.raises(UsageError, match=named):
            readings.filled(place, found)


def test_a_sentence_does_not_outlive_what_it_says(study: Path) -> None:
    found = answer(results.load(study))
    said = "{decided shared - dual.worst}Worse, by {seeds} seeds.{undecided product - dual.worst}"
    assert readings.filled(said, found) == "Worse, by 8 seeds."
    for place, so in [
        ("{undecided shared - dual.worst}", "it is decided"),
        ("{decided product - dual.worst}", "not decided"),
    ]:
        with pytest.raises(UsageError, match=f"{so}; write the sentence anew"):
            readings.filled(place, found)


def test_what_is_not_finished_or_no_study_is_not_kept(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_study(tmp_path / "bare", ARMS, trials=2)
    for folder, why in [(tmp_path, "is not a study folder"), (bare, "its trainings are not there")]:
        assert publish.main([str(folder), "--to", str(tmp_path / "to")]) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "to" / "data").exists()


KEPT = sorted((ROOT / publish.RESULTS / "data").glob("*/study.json"))


@pytest.mark.parametrize("file", KEPT, ids=lambda path: path.parent.name)
def test_the_pages_say_what_the_kept_tables_say(file: Path) -> None:
    """The committed line and, for whoever reads only the page, its words: without drawing anything."""
    place = ROOT / publish.RESULTS
    tables = results.load(file.parent)
    found = answer(tables)
    row = "| " + " | ".join(publish.line(tables, found)) + " |"
    assert row in (place / "index.md").read_text("utf-8").splitlines(), "`make results` was not run"
    page = (place / f"{file.parent.name}.md").read_text("utf-8")
    assert publish.reading(place, found) in page
    for line in publish.text(tables, found, "", ()).splitlines():
        assert line in page, line


def test_what_is_kept_is_small_and_names_no_place() -> None:
    files = [path for path in (ROOT / publish.RESULTS / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    for file in KEPT:
        assert not re.search(r'"/|(?<![\w.])/(tmp|home|root|work)/', json.dumps(json.loads(file.read_text("utf-8"))))
    for reading in (ROOT / publish.RESULTS / "readings").glob("*-*.md"):
        assert (ROOT / publish.RESULTS / "data" / reading.stem / "study.json").is_file(), reading.name


def test_the_readme_says_what_was_measured() -> None:
    text = (ROOT / publish.README).read_text("utf-8")
    assert publish.readme(text, ROOT / publish.RESULTS) == text, "`make results` was not run"
    headline, ending = (
        text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0] for name in ("headline", "ending")
    )
    assert " points (" in headline and "{" not in headline
    assert " NSD" in ending and " min" not in ending, "how long a machine was busy is no result"
    assert "Holm p" in ending and "trainings, on" in ending
