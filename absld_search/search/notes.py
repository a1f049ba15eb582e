"""Markdown for MLflow's descriptions: of a study, of a trial, of its answer. Every word from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absld_search.search import mlflow_view

NOTE = "mlflow.note.content"
LONGEST = 4500  # characters; MLflow takes 8000 bytes and refuses the whole request beyond


def of_trial(arm: str, params: Mapping[str, Any], values: Mapping[str, float], reason: str) -> str:
    """What a trial is, what it reached, and why it ended."""
    rows = [*_table("parameter", params), "", *_table("value", values)]
    return cut("\n".join([f"A trial of arm **{plain(arm)}**. {plain(reason)}".rstrip(), "", *rows]))


def of_study(question: str, experiment: str, answer: str = "") -> str:
    """A study's question, its answer once there is one, and the ways into it."""
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    lines = [
        f"* [{title}]({page}&compareRunsMode={mlflow_view.mode(view)}&viewStateShareKey={view}); its filter alone: "
        f"[`{mlflow_view.FILTERS[view].replace('`', '')}`]({page}&{mlflow_view.filter_query(view)})"
        for view, title in mlflow_view.TITLES.items()
    ]
    said = [answer, ""] if answer else []
    ways = (
        "A saved view's format is MLflow's own and undocumented: where one opens an empty page, its filter still works."
    )
    return "\n".join([f"**{plain(question)}**", "", *said, *lines, "", ways])


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, shown)
    for sign in "\\`*_[]|#":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def cut(text: str) -> str:
    """At most as long as MLflow takes, ended at a line."""
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST].rpartition("\n")[0] + "\n\n(cut; the whole stands in the report)"


def _table(heading: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| {plain(name)} | {plain(_short(value))} |" for name, value in values.items()]
    return [f"| {heading} | |", "| --- | ---: |", *rows]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
