"""What the UI tests share: a small made-up study, the real `absld_search.ui` as a subprocess, and a real Chromium."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from absld_search.search.mlflow_view import SIDES, class_accuracy, temperature

ROOT = Path(__file__).parent.parent
START_SECONDS = 200
PAGE_MS = 90_000
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# What MLflow notes after it has opened its chat panel once; the panel would take a third of the first picture.
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
OBJECTIVES = {"worst_class_robust_accuracy": "max", "robust_accuracy": "max"}
CLASSES, ARMS = 4, ("dual", "shared")
PARAMS = ["temperature_lr", "initial_temperature_adv", "initial_temperature_clean"]


def made_up_study(out: Path) -> set[str]:
    """Fills the store below `out` with 12 trials of two arms; the names of those on the joint front."""
    from absld_search.search.mlflow_view import Shown
    from absld_search.search.tracking import Mirror, store_uri

    shown = Shown(OBJECTIVES, PARAMS, CLASSES, "robust", ["worst_class_robust_accuracy"])
    mirror = Mirror(
        store_uri(out), "made_up", out / "artifacts", shown, arms=ARMS, question="Is a <b>made-up</b> study enough?"
    )
    mirror.open()
    values = {}
    for number in range(12):
        arm = ARMS[number % 2]
        name = f"{arm} #{number // 2}"
        values[name] = _made_up_trial(mirror, number, arm, name)
    front = {name for name in values if not any(_dominates(other, values[name]) for other in values.values())}
    mirror.mark_fronts(front, front)
    for arm in ARMS:
        _made_up_choice(mirror, f"{arm} #0")
    mirror.trial("dual #6", "dual #6", {}, {"arm": "dual"})
    mirror.training("dual #6/0", "dual #6", "dual #6 seed 0", {"arm": "dual", "seed": "0", "stage": "search"})
    for key in ("dual #6/0", "dual #6"):
        mirror.finish(key, {}, "FAILED", "logits are not finite")
    report = out / "report.html"
    report.write_text("<h1>A made-up answer</h1>")
    mirror.answer([report], {"test/robust_accuracy": 0.5}, "The answer of a made-up study")
    return front


def _made_up_trial(mirror: Any, number: int, arm: str, name: str) -> tuple[float, float]:
    angle = (0.5 + number % 6) / 6 * math.pi / 2
    radius = 1.0 if number in (0, 3, 4, 7, 8, 11) else 0.9 - 0.03 * (number % 4)
    ends = (0.18 + 0.16 * radius * math.cos(angle), 0.42 + 0.12 * radius * math.sin(angle))
    params = {
        "temperature_lr": round(10 ** (-2 + 2 * ((number * 5) % 12) / 11), 4),
        "initial_temperature_adv": round(0.5 + 1.5 * ((number * 7) % 12) / 11, 3),
        "initial_temperature_clean": round(0.5 + 1.5 * number / 11, 3),
    }
    mirror.trial(name, name, params, {"arm": arm})
    mirror.training(f"{name}/0", name, f"{name} seed 0", {"arm": arm, "seed": "0"})
    rows = [(epoch, dict(zip(OBJECTIVES, _at(epoch, ends, number), strict=True))) for epoch in range(1, 31)]
    for key in (name, f"{name}/0"):
        mirror.epochs(key, rows)
        mirror.finish(key, rows[-1][1])
    return tuple(rows[-1][1].values())


def _made_up_choice(mirror: Any, name: str) -> None:
    """What the confirm stage adds to a trial: temperatures epoch by epoch, class accuracies on test, a mark."""
    names = [temperature(side, index) for side in SIDES for index in range(CLASSES)]
    rows = [(e, {key: 1 + (k - CLASSES) * e / 400 for k, key in enumerate(names)}) for e in range(1, 31)]
    mirror.epochs(name, rows)
    values = {class_accuracy("robust", index): 0.3 + 0.1 * index for index in range(CLASSES)}
    mirror.finish(name, {**values, "test/worst_class_robust_accuracy": 0.3}, tags={"confirmed": "true"})


def _at(epoch: int, ends: tuple[float, float], number: int) -> tuple[float, float]:
    grown = 1 - math.exp(-epoch / (5 + number % 4))
    wobble = 0.02 * math.sin(epoch * (1.3 + number / 7)) * math.exp(-epoch / 8)
    return tuple(round(0.1 + (end - 0.1) * grown + wobble, 4) for end in ends)


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Runs the door with these arguments; its process and the link it printed. Ends it by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "absld_search.ui", *arguments], cwd=ROOT, env=clean_environment(**environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process, _printed_link(process)
    finally:
        process.terminate()
        process.communicate(timeout=300)


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without the store that its user may have chosen."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, **more}


def _printed_link(process: subprocess.Popen) -> str:
    line = process.stdout.readline()  # ends at the latest when the door gives up
    found = re.search(r"http://\S+", line)
    assert found, f"no link in {line!r}; stderr: {process.stderr.read()}"
    return found.group()


@contextmanager
def chromium_page() -> Iterator[tuple[Any, list[str]]]:
    """A Playwright page in headless Chromium, and the list of hosts it has asked so far.

    Skips the test where there is no Chromium; fails it instead under ABSLD_REQUIRE_BROWSER=1.
    """
    path = _chromium()
    from playwright.sync_api import sync_playwright

    hosts: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.on("request", lambda request: hosts.append(urlsplit(request.url).hostname or ""))
        page.set_default_timeout(PAGE_MS)
        page.add_init_script(NO_ASSISTANT)
        try:
            yield page, hosts
        finally:
            browser.close()


def front_rows(page: Any, *links: str) -> list[str]:
    """Opens the links one after the other; after the last, the run names in the list, top down.

    Times out where the page does not ask for the front, or never shows as many rows as it counts matching runs.
    """
    for link in links[:-1]:
        page.goto(link)
    with page.expect_response(_is_the_front):
        page.goto(links[-1])
    return rows(page)


def rows(page: Any) -> list[str]:
    """The run names in the list at the left, once it shows as many as it counts (MLflow draws up to 25)."""
    return page.wait_for_function(
        """() => {
            const count = document.body.innerText.match(/(\\d+)\\s+matching run/);
            const names = [...document.querySelectorAll('.ag-row a[href*="/runs/"]')].map(a => a.innerText.trim());
            return names.length > 0 && count && names.length === Number(count[1]) && names;
        }"""
    ).json_value()


def open_view(page: Any, link: str, view: str) -> None:
    """Opens another view of the study that a link leads to."""
    page.goto("about:blank")  # else only the address behind the # changes, and the page stays
    mode = "TABLE" if view == "failures" else "CHART"
    page.goto(link.replace("=pareto", f"={view}").replace("=CHART", f"={mode}"))


def wait_for_line_charts(page: Any, titles: Iterable[str]) -> None:
    """Waits until charts of these titles are in sight and as many have drawn lines."""
    page.wait_for_function(
        """titles => {
            const drawn = [...document.querySelectorAll('.js-plotly-plot')].filter(p => p.querySelector('.js-line'));
            return drawn.length >= titles.length && titles.every(title => document.body.innerText.includes(title));
        }""",
        arg=list(titles),
    )


def line_colours(page: Any) -> set[str]:
    """The colours of the lines in the first line chart."""
    chart = page.locator(".js-plotly-plot:has(.js-line)").first
    strokes = chart.locator(".js-line").evaluate_all("lines => lines.map(line => getComputedStyle(line).stroke)")
    return set(strokes)


def _is_the_front(response: Any) -> bool:
    return "runs/search" in response.url and "tags.pareto = 'true'" in (response.request.post_data or "")


def scatter_points(page: Any) -> int:
    """How many points the first scatter chart shows."""
    chart = page.locator(".js-plotly-plot:not(:has(.js-line))").first
    chart.locator(".scatterlayer .point").first.wait_for()
    return chart.locator(".scatterlayer .point").count()


def picture(page: Any, path: Path) -> None:
    """Takes a screenshot of the view without the side bar and the note on shared views."""
    for button in ("Hide banner", "Toggle sidebar"):
        page.get_by_label(button).click()
    page.locator(".parcoords").first.wait_for()
    page.mouse.move(750, 20)  # off the charts, which show a box where the pointer is
    page.wait_for_timeout(2500)  # the charts grow into the freed room
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))


def _chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        refuse = pytest.fail if os.environ.get("ABSLD_REQUIRE_BROWSER") == "1" else pytest.skip
        refuse("no Chromium on this machine (package `chromium`)")
    return path
