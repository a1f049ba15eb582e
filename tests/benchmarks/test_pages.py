"""Pages whose tables are written from kept results."""

import re
from pathlib import Path

import pytest

from analysis.writing import filled
from benchmarks import pages, search_page, speed_page
from benchmarks.pages import Page

PAGES = {"search": search_page.PAGE, "speed": speed_page.PAGE}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_says_what_its_results_say(page: Page) -> None:
    text = page.path.read_text(encoding="utf-8")
    assert set(page.tables) == set(re.findall(r"<!-- /([\w-]+) -->", text)), "every table has its place"
    for name in page.tables:
        assert filled(text, name, page.tables[name](pages.read(page.results, name))) == text, name


def test_what_is_kept_elsewhere_leaves_the_page_alone(tmp_path: Path) -> None:
    path, results = tmp_path / "page.md", tmp_path / "results"
    path.write_text("a\n<!-- x -->\nold\n<!-- /x -->\n", encoding="utf-8")
    page = Page(path, results, {"x": lambda found: f"{found['rows']} rows"})
    page.write(tmp_path / "other", "x", {"rows": 3})
    assert "old" in path.read_text(encoding="utf-8") and pages.read(tmp_path / "other", "x")["rows"] == 3
    page.write(results, "x", {"rows": 4})
    assert path.read_text(encoding="utf-8") == "a\n<!-- x -->\n4 rows\n<!-- /x -->\n"
    path.write_text("a\n<!-- x -->\n<!-- /x -->\n", encoding="utf-8")
    page.again()
    assert "4 rows" in path.read_text(encoding="utf-8")
