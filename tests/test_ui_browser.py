"""A person's way to the front and the other views: the real door, the real server, a real browser."""

import os
from pathlib import Path

import pytest

from absld_search.core import results
from absld_search.search.mlflow_view import CLASSES, CURVES, FAILURES, TEMPERATURES, filter_query
from tests import browser
from tests.browser import chromium_page, front_rows, made_up_study, picture, scatter_points, serving

LOOPBACK = {"127.0.0.1", "localhost", ""}  # "": data and blob addresses have no host


@pytest.mark.browser
@pytest.mark.slow
def test_every_view_shows_what_it_promises(tmp_path):
    out = tmp_path / "runs"
    front = made_up_study(out)
    assert 2 < len(front) < 12
    with chromium_page() as (page, hosts), serving("--out", str(out)) as (_, link):
        assert sorted(front_rows(page, link)) == sorted(front)
        assert scatter_points(page) == len(front)
        picture(page, tmp_path / "front.png")

        browser.open_view(page, link, CURVES)
        assert scatter_points(page) == 12
        browser.wait_for_line_charts(page, browser.OBJECTIVES)

        browser.open_view(page, link, TEMPERATURES)
        browser.wait_for_line_charts(page, [f"temperature_adv/class_{c:02d}" for c in range(browser.CLASSES)])
        assert "Temperature, clean labels (4)" in " ".join(page.inner_text("body").split())
        assert browser.rows(page) == ["dual #0", "shared #0"]
        assert browser.line_colours(page) == {"rgb(0, 114, 178)", "rgb(213, 94, 0)"}  # the arms', by the palette

        browser.open_view(page, link, CLASSES)
        page.locator(".parcoords").first.wait_for()
        assert browser.rows(page) == ["dual #0", "shared #0"]
        axes = page.locator(".parcoords text").all_text_contents()
        assert {f"test/robust_accuracy/class_{c:02d}" for c in range(browser.CLASSES)} <= set(axes)

        browser.open_view(page, link, FAILURES)
        page.get_by_text("logits are not finite").first.wait_for()
        linked = [name.strip() for name in page.locator('a[href*="/runs/"]').all_inner_texts()]
        shown = {name for name in linked if "#" in name}
        assert shown and shown <= {"dual #6", "dual #6 seed 0"}  # the trial that failed, or its one training

        plain = f"{link.split('?')[0]}?workflowType=machine_learning&{filter_query('pareto')}"
        assert sorted(front_rows(page, "about:blank", plain)) == sorted(front)  # without any saved view
        assert hosts and set(hosts) <= LOOPBACK


@pytest.mark.browser
@pytest.mark.slow
def test_a_real_study_opens_on_its_front(study, tmp_path):
    """ABSLD_BROWSER_STUDY and ABSLD_SCREENSHOT make the README's picture of a study of one's own."""
    study = Path(os.environ.get("ABSLD_BROWSER_STUDY", study))
    trials = results.load(study).trials.to_pandas()
    with chromium_page() as (page, hosts), serving("--out", str(study.parent)) as (_, link):
        assert sorted(front_rows(page, link)) == sorted(trials.trial[trials.pareto])
        picture(page, Path(os.environ.get("ABSLD_SCREENSHOT", tmp_path / "front.png")))
        assert set(hosts) <= LOOPBACK
