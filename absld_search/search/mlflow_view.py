"""Saved views of MLflow's runs page, as data: filter, columns and charts under a key that a link can open.

A view is an experiment tag. Its format is MLflow's own and undocumented (made for 3.17): a JSON object whose `state`
is the page's state, deflated. A newer MLflow that knows it no more shows its plain page, so a mistake here costs the
charts and never a run.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FRONT, TRIALS = "pareto", "trials"
TITLES = {FRONT: "Pareto front", TRIALS: "All trials"}
FILTERS = {FRONT: "tags.pareto = 'true'", TRIALS: "tags.`absld.kind` = 'trial'"}
CHARTED_RUNS = 200  # MLflow draws at most 500; the front and its curves stay readable below this

LEADING_COLUMNS = {"attributes.`Run Name`": 160, "runDateAndNestInfo": 150, "duration": 80}  # pixels


def store_uri(out: Path) -> str:
    """The tracking URI of the store that the studies in `out` share; naming it costs no import of MLflow."""
    return f"sqlite:///{(out / 'mlflow.db').resolve()}"


def tag(view: str) -> str:
    """The name of the experiment tag that holds the view of this name."""
    return f"mlflow.sharedViewState.{view}"


def saved_view(view: str, objectives: Mapping[str, str], params: Sequence[str], now_ms: int) -> str:
    """The value of that tag: a view of `FRONT` or `TRIALS` with a column for each objective, parameter and `arm`."""
    state = zlib.compress(json.dumps(_state(view, objectives, params)).encode(), level=9)
    encoded = "deflate;" + base64.b64encode(state).decode()
    return json.dumps({"name": TITLES[view], "createdAt": now_ms, "updatedAt": now_ms, "state": encoded})


def _state(view: str, objectives: Mapping[str, str], params: Sequence[str]) -> dict[str, Any]:
    first, direction = next(iter(objectives.items()))
    columns = _columns(objectives, params)
    return {
        "searchFilter": FILTERS[view],
        "orderByKey": f"metrics.`{first}`",
        "orderByAsc": direction == "min",  # the best of the first objective stands on top
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [*LEADING_COLUMNS, *columns],
        "columnWidths": {**LEADING_COLUMNS, **{name: _width(name) for name in columns}},
        "runsHiddenMode": "SHOWALL",  # MLflow's default draws the first ten runs only
        "compareRunCharts": _charts(objectives, params),
        "compareRunSections": [
            _section("front", f"{TITLES[view]}: objectives and learning curves", columns=3, cardHeight=265),
            _section("parallel", "Parameters and objectives", columns=1, cardHeight=290),
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _columns(objectives: Mapping[str, str], params: Sequence[str]) -> list[str]:
    return [
        *(f"metrics.`{name}`" for name in objectives),
        *(f"params.`{name}`" for name in params),
        "tags.`pareto`",
        "tags.`arm`",
    ]


def _width(column: str) -> int:
    return 40 + 7 * len(column.split("`")[1])  # pixels: MLflow cuts what does not fit


def _charts(objectives: Mapping[str, str], params: Sequence[str]) -> list[dict[str, Any]]:
    names = list(objectives)
    parallel = _chart("PARALLEL", "parallel", "parallel",
                      selectedParams=list(params), selectedMetrics=names, showAllRuns=False)  # fmt: skip
    return [*(_scatter(names[0], other) for other in names[1:]), *(_line(name) for name in names), parallel]


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return _chart("SCATTER", f"scatter-{x}-{y}", "front", **axes)


def _line(metric: str) -> dict[str, Any]:
    return _chart(
        "LINE", f"line-{metric}", "front", displayName=metric, metricKey=metric, selectedMetricKeys=[metric],
        xAxisKey="step", selectedXAxisMetricKey="", yAxisKey="metric", yAxisExpressions=[], range={},
        scaleType="linear", xAxisScaleType="linear", lineSmoothness=0, ignoreOutliers=False, displayPoints=False,
        useGlobalXaxisKey=True, useGlobalLineSmoothing=True,
    )  # fmt: skip


def _chart(kind: str, uuid: str, section: str, **config: Any) -> dict[str, Any]:
    shared = {"deleted": False, "isGenerated": False, "runsCountToCompare": CHARTED_RUNS}
    return {"type": kind, "uuid": uuid, "metricSectionId": section, **shared, **config}


def _section(uuid: str, name: str, **layout: int) -> dict[str, Any]:
    shared = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, **shared, **layout}
