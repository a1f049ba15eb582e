"""Saved views of MLflow's runs page, as data: filter, columns and charts under a key that a link can open.

A view is an experiment tag. Its format is MLflow's own and undocumented (made for 3.17): a JSON object whose `state`
is the page's state, deflated. A newer MLflow that knows it no more shows its plain page, so a mistake here costs the
charts and never a run; the filter alone is part of a plain address (`filter_query`), which is documented.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

FRONT, CURVES, TEMPERATURES, CLASSES, FAILURES = "pareto", "curves", "temperatures", "classes", "failures"
TITLES = {
    FRONT: "Pareto front",
    CURVES: "Learning curves of all trials",
    TEMPERATURES: "Class temperatures of the arms' choices",
    CLASSES: "Class accuracies of the arms' choices",
    FAILURES: "Failures",
}
CONFIRMED = "tags.confirmed = 'true'"
FILTERS = {
    FRONT: "tags.pareto = 'true'",
    CURVES: "tags.`absld.kind` = 'trial'",
    TEMPERATURES: CONFIRMED,
    CLASSES: CONFIRMED,
    # Trainings alone: MLflow would fold them under their trial, and count what it does not show.
    FAILURES: "attributes.status = 'FAILED' and tags.`absld.kind` = 'training'",
}
CHARTED_RUNS = 200  # MLflow draws at most 500; the front and its curves stay readable below this
CLASSES_CHARTED = 12  # one chart each; of more classes, a sample that spans them
SIDES = {"adv": "adversarial labels", "clean": "clean labels"}

LEADING_COLUMNS = {"attributes.`Run Name`": 160, "runDateAndNestInfo": 150, "duration": 80}  # pixels


@dataclass(frozen=True)
class Shown:
    """What a study's views show: objectives with "max" or "min", tuned parameters, and how many classes there are."""

    objectives: Mapping[str, str]
    params: Sequence[str]
    classes: int = 0
    kind: str = "robust"  # the word of the attack on test
    test: Sequence[str] = field(default_factory=tuple)  # metrics on test, without "test/"


def store_uri(out: Path) -> str:
    """The tracking URI of the store that the studies in `out` share; naming it costs no import of MLflow."""
    return f"sqlite:///{(out / 'mlflow.db').resolve()}"


def tag(view: str) -> str:
    """The name of the experiment tag that holds the view of this name."""
    return f"mlflow.sharedViewState.{view}"


def filter_query(view: str) -> str:
    """The view's filter as MLflow's own address takes it: what is left where the saved views are not understood."""
    return f"searchFilter={quote(FILTERS[view], safe='')}"


def mode(view: str) -> str:
    """How MLflow's runs page is opened for a view: as charts, or as a table."""
    return "TABLE" if view == FAILURES else "CHART"


def link(base_url: str, experiment_id: str, view: str = FRONT) -> str:
    """The address of a saved view: the runs in a list at the left, their charts at the right."""
    page = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&compareRunsMode={mode(view)}&viewStateShareKey={view}"


def plain_link(base_url: str, experiment_id: str, view: str = FRONT) -> str:
    """The address of the same runs without a saved view, in words that MLflow documents."""
    page = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&{filter_query(view)}"


def temperature(side: str, index: int) -> str:
    """The metric of one class's temperature; side: one of `SIDES`."""
    return f"temperature_{side}/class_{index:02d}"


def class_accuracy(kind: str, index: int) -> str:
    """The metric of one class's accuracy on test."""
    return f"test/{kind}_accuracy/class_{index:02d}"


def saved_view(view: str, shown: Shown, now_ms: int) -> str:
    """The value of that tag."""
    state = zlib.compress(json.dumps(_state(view, shown)).encode(), level=9)
    encoded = "deflate;" + base64.b64encode(state).decode()
    return json.dumps({"name": TITLES[view], "createdAt": now_ms, "updatedAt": now_ms, "state": encoded})


def _state(view: str, shown: Shown) -> dict[str, Any]:
    columns, (order, ascending) = _columns(view, shown), _order(view, shown)
    charts, sections = _cards(view, shown)
    return {
        "searchFilter": FILTERS[view],
        "orderByKey": order,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [*LEADING_COLUMNS, *columns],
        "columnWidths": {**LEADING_COLUMNS, **{name: _width(name) for name in columns}},
        "runsHiddenMode": "SHOWALL",  # MLflow's default draws the first ten runs only
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # else MLflow sorts the sections by their names
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _order(view: str, shown: Shown) -> tuple[str, bool]:
    """What rows are sorted by, and whether upwards: the best of the first objective on top; newest failures."""
    if view == FAILURES:
        return "attributes.start_time", False
    if view in (TEMPERATURES, CLASSES):
        return "tags.`arm`", True
    first, direction = next(iter(shown.objectives.items()))
    return f"metrics.`{first}`", direction == "min"


def _columns(view: str, shown: Shown) -> list[str]:
    if view == FAILURES:
        return ["tags.`reason`", "tags.`arm`", "tags.`stage`", "tags.`seed`"]
    if view in (TEMPERATURES, CLASSES):
        test = [*(f"metrics.`test/{name}`" for name in shown.test), *(f"params.`{name}`" for name in shown.params)]
        return ["tags.`arm`", *test]
    objectives = [f"metrics.`{name}`" for name in shown.objectives]
    return ["tags.`arm`", *objectives, *(f"params.`{name}`" for name in shown.params), "tags.`pareto`"]


def _width(column: str) -> int:
    if column == "tags.`reason`":
        return 420
    return 40 + 7 * len(column.split("`")[1])  # pixels: MLflow cuts what does not fit


Cards = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def _cards(view: str, shown: Shown) -> Cards:
    """A view's charts, and the sections that they stand in."""
    if view == TEMPERATURES:
        charts = [_line(temperature(side, index), side) for side in SIDES for index in _sample(shown.classes)]
        return charts, [_section(side, f"Temperature, {words}", 3, 230) for side, words in SIDES.items()]
    if view == CLASSES:
        return _class_cards(shown)
    if view == FAILURES:
        return [], []
    return _search_cards(view, shown)


def _search_cards(view: str, shown: Shown) -> Cards:
    names = list(shown.objectives)
    scatter, lines = [_scatter(names[0], other) for other in names[1:]], [_line(name, "front") for name in names]
    parallel = _parallel(list(shown.params), names)
    charts = [*scatter, *lines] if view == FRONT else [*lines, *scatter]
    title = f"{TITLES[view]}: objectives and learning curves" if view == FRONT else TITLES[view]
    return [*charts, parallel], [
        _section("front", title, 3, 265),
        _section("parallel", "Parameters and objectives", 1, 290),
    ]


def _class_cards(shown: Shown) -> Cards:
    metrics = [class_accuracy(shown.kind, index) for index in _sample(shown.classes)]
    bars = [_bar(f"test/{name}", "summary") for name in shown.test] + [_bar(name, "bars") for name in metrics]
    return [_parallel([], metrics), *bars], [
        _section("parallel", "Accuracy of each class on test, a line for each arm", 1, 290),
        _section("summary", "On test", 3, 230),
        _section("bars", "Class by class", 3, 230),
    ]


def _sample(classes: int) -> list[int]:
    if classes <= CLASSES_CHARTED:
        return list(range(classes))
    return sorted({round(place * (classes - 1) / (CLASSES_CHARTED - 1)) for place in range(CLASSES_CHARTED)})


def _parallel(params: list[str], metrics: list[str]) -> dict[str, Any]:
    return _chart("PARALLEL", "parallel", "parallel", selectedParams=params, selectedMetrics=metrics, showAllRuns=False)


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return _chart("SCATTER", f"scatter-{x}-{y}", "front", **axes)


def _bar(metric: str, section: str) -> dict[str, Any]:
    return _chart("BAR", f"bar-{metric}", section, metricKey=metric)


def _line(metric: str, section: str) -> dict[str, Any]:
    return _chart(
        "LINE", f"line-{metric}", section, displayName=metric, metricKey=metric, selectedMetricKeys=[metric],
        xAxisKey="step", selectedXAxisMetricKey="", yAxisKey="metric", yAxisExpressions=[], range={},
        scaleType="linear", xAxisScaleType="linear", lineSmoothness=0, ignoreOutliers=False, displayPoints=False,
        useGlobalXaxisKey=True, useGlobalLineSmoothing=True,
    )  # fmt: skip


def _chart(kind: str, uuid: str, section: str, **config: Any) -> dict[str, Any]:
    shared = {"deleted": False, "isGenerated": False, "runsCountToCompare": CHARTED_RUNS}
    return {"type": kind, "uuid": uuid, "metricSectionId": section, **shared, **config}


def _section(uuid: str, name: str, columns: int, height: int) -> dict[str, Any]:
    shared = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, **shared, "columns": columns, "cardHeight": height}
