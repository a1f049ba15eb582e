"""The report as a person sees it: from a file, in a real browser, on a desk and on a phone."""

import os
from pathlib import Path

import pytest

from analysis import figures, report
from tests.browser import chromium_page

CUT_HEIGHT = 1480  # of the picture for the documentation
DRAWN = "svg => { const box = svg.getBoundingClientRect(); return box.width > 200 && box.height > 100; }"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_reads_well_and_stands_alone(study, tmp_path, width):
    """ABSLD_BROWSER_STUDY and ABSLD_REPORT_PICTURE make the documentation's picture of a study of one's own."""
    folder = Path(os.environ.get("ABSLD_BROWSER_STUDY", study))
    report.write(folder)
    page_file = (folder / "report" / "index.html").resolve().as_uri()
    said: list[str] = []
    requests: list[str] = []
    with chromium_page() as (page, _):
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file)
        shown = page.locator("figure svg")
        assert all(shown.evaluate_all(f"all => all.map({DRAWN})"))
        labels = set(shown.evaluate_all("all => all.map(svg => svg.getAttribute('aria-label'))"))
        drawn = {figures.FIGURES[name].title for name in figures.drawn(report.loading.load(folder))}
        assert labels == drawn and len(drawn) >= 5
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1], "the page itself scrolls sideways"
        outside = "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
        assert page.locator("h1, h2, p, li, .wide, .drawing, nav").evaluate_all(outside) == 0
        scrolling = "all => all.filter(e => e.scrollWidth > e.clientWidth).length"
        assert page.locator(".drawing" if width < 1280 else ".drawing, .wide").evaluate_all(scrolling) == 0
        smallest = page.locator("p, li, td, th").evaluate_all(
            "all => Math.min(...all.map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 13
        page.locator("nav a").last.click()
        assert page.evaluate("scrollY") > 0
        picture = Path(os.environ.get("ABSLD_REPORT_PICTURE", tmp_path / "report.png"))
        if width == 1280:
            page.goto(page_file)
            page.screenshot(
                path=str(picture), clip={"x": 0, "y": 0, "width": width, "height": CUT_HEIGHT}, full_page=True
            )
            assert picture.read_bytes().startswith(b"\x89PNG")
    assert said == [] and [url for url in requests if not url.startswith((page_file, "data:"))] == []
