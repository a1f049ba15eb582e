"""A person's way to the front: the real door, the real server, a real browser."""

import os
from pathlib import Path

import pytest

from absld_search.core import results
from tests.browser import chromium_page, front_rows, made_up_study, picture, scatter_points, serving

LOOPBACK = {"127.0.0.1", "localhost", ""}  # "": data and blob addresses have no host


@pytest.mark.browser
@pytest.mark.slow
def test_the_link_opens_the_front_and_nothing_but_the_front(tmp_path):
    out = tmp_path / "runs"
    front = made_up_study(out)
    assert 2 < len(front) < 12
    with chromium_page() as (page, hosts), serving("--out", str(out)) as (_, link):
        assert sorted(front_rows(page, link)) == sorted(front)
        assert scatter_points(page) == len(front)
        picture(page, tmp_path / "front.png")
        page.goto("about:blank")  # else only the address behind the # changes, and the page stays
        page.goto(link.replace("=pareto", "=trials"))
        assert scatter_points(page) == 12
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
