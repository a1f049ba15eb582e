"""How a search went: what it reached for which cost, its trials as lines, what mattered, and what was stopped."""

import json
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from absld_search.core.results import Tables
from analysis import spending as spent
from analysis import standing
from analysis.drawing import (
    DRAWN_AS_PATHS,
    axis_label,
    dashes,
    drawn,
    legend_below,
    look,
    new_figure,
    say_inside,
    styled,
)
from analysis.importances import importances
from analysis.loading import WORST
from analysis.sentences import plain

LINES_SHOWN = 300  # trials off the fronts in parallel coordinates; a sample of more
Array = NDArray[np.float64]


def spending(tables: Tables) -> Figure | None:
    """Hypervolume, and the best worst class, against hours of training; None without a trial."""
    courses = spent.courses(tables)
    if not courses:
        return None
    unit, scale = _unit(max(float(course.hours[-1]) for course in courses.values()))
    with styled():
        figure, (volume, best) = new_figure(2, 3.9, columns=2, sharey=False)
        for arm, course in courses.items():
            colour, marker, _ = look(tables, arm)
            known, seen, spent_by = np.isfinite(course.volume), np.isfinite(course.best), scale * course.hours
            reached = drawn(course.best[seen], WORST)
            hours = np.append(spent_by[known], spent_by[-1])
            shape: Any = {"color": colour, "drawstyle": "steps-post", "linestyle": dashes(tables, arm)}
            volume.plot(hours, np.append(course.volume[known], course.volume[known][-1:]), **shape)
            best.plot(spent_by[seen], reached, label=arm, **shape)
            for axes, x, y in (
                (volume, spent_by[known], course.volume[known]),
                (best, spent_by[seen], reached),
            ):
                axes.plot(x[:1], y[:1], color=colour, marker=marker, linestyle="none")
        corner = ", ".join(f"{value:g}" for value in spent.reference(tables))
        volume.set_ylabel(f"hypervolume (from {corner})")
        best.set_ylabel(f"best {axis_label(tables, WORST)}")
        for axes in (volume, best):
            axes.set_xlabel(f"{unit} of training")
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # neither a volume nor an accuracy is below 0
            axes.xaxis.set_major_locator(MaxNLocator(4))  # more would touch in half the width
        if not any(np.isfinite(course.best).any() for course in courses.values()):
            say_inside(best, "the worst class on val\nis not stored")
        legend_below(figure, 4)
        volume.set_title("Hypervolume of the front")
        best.set_title("Best worst class so far")
        return figure


def _unit(hours: float) -> tuple[str, float]:
    """The unit in which so many hours read well, and how many of it an hour has."""
    return ("hours", 1.0) if hours >= 1 else ("minutes", 60.0) if hours >= 1 / 60 else ("seconds", 3600.0)


def parallel_coordinates(tables: Tables) -> Figure | None:
    """Complete trials as lines over their parameters and objectives; None where no parameter takes two values."""
    rows = [row for row in tables.trials.to_pylist() if row["state"] == "COMPLETE"]
    rows = [row for row in rows if row["arm"] in tables.facts["arms"]]
    params = [json.loads(row["params"]) for row in rows]
    names = list(dict.fromkeys(name for found in params for name in found))
    names = [name for name in names if len({str(found[name]) for found in params if name in found}) > 1]
    if not names:
        return None
    columns = [_column([found.get(name) for found in params]) for name in names]
    for name in tables.facts["objectives"]:
        columns.append(_column(list(drawn([row[f"objective/{name}"] for row in rows], name)), log=False))
    labels = [*names, *(plain(name) for name in tables.facts["objectives"])]
    with styled():
        figure, (axes,) = new_figure(1, 3.9)
        _draw_lines(axes, tables, rows, np.column_stack([places for places, _, _ in columns]))
        _draw_scales(axes, [ends for _, *ends in columns], labels)
        for arm in [arm for arm in tables.facts["arms"] if any(row["arm"] == arm for row in rows)]:
            axes.plot([], [], color=look(tables, arm)[0], linestyle=dashes(tables, arm), label=arm)
        legend_below(figure, 4)
        axes.set_title("Trials of the search: strong lines are on their arm's front")
        return figure


def _column(values: list[Any], log: bool = True) -> tuple[Array, str, str]:
    """Where values lie between their least (0) and their greatest (1), nan where there is none, and the ends' names."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, bool | str) for value in known):
        order = sorted(set(known), key=str)
        places = [np.nan if value is None else order.index(value) / max(len(order) - 1, 1) for value in values]
        return np.array(places), str(order[0]), str(order[-1])
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    ends = (f"{low:.3g}", f"{high:.3g}")
    if high == low:
        return np.where(np.isnan(numbers), np.nan, 0.5), *ends
    if log and low > 0 and high / low > 5:
        return np.log(numbers / low) / np.log(high / low), *ends
    return (numbers - low) / (high - low), *ends


def _draw_lines(axes: Axes, tables: Tables, rows: list[dict[str, Any]], places: Array) -> None:
    off = [index for index, row in enumerate(rows) if not row["pareto_arm"]]
    sample = [off[i] for i in np.unique(np.linspace(0, len(off) - 1, min(LINES_SHOWN, len(off))).astype(int))]
    strong = [index for index, row in enumerate(rows) if row["pareto_arm"]]
    for chosen, alpha, width in ((sample, 0.22, 0.8), (strong, 0.95, 1.5)):
        segments = [_segment(places[index]) for index in chosen]
        style = [(look(tables, rows[i]["arm"])[0], dashes(tables, rows[i]["arm"])) for i in chosen]
        lines = LineCollection(
            segments,
            colors=[colour for colour, _ in style],
            linestyles=[dash for _, dash in style] if width > 1 else "solid",
            linewidths=width,
            alpha=alpha,
            rasterized=len(chosen) * places.shape[1] > DRAWN_AS_PATHS,
        )
        axes.add_collection(lines)


def _segment(places: Array) -> Array:
    known = np.isfinite(places)
    return np.column_stack([np.flatnonzero(known), places[known]])


def _draw_scales(axes: Axes, ends: list[list[str]], labels: list[str]) -> None:
    axes.set_xlim(-0.3, len(labels) - 0.7)
    axes.set_ylim(-0.12, 1.12)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    axes.set_xticks(range(len(labels)), [label.replace("_", "_\n").replace(" ", "\n") for label in labels], fontsize=8)
    axes.tick_params(axis="x", length=0)
    for place, (low, high) in enumerate(ends):
        axes.axvline(place, 0.09, 0.91, color="#555555", linewidth=0.8)
        axes.text(place, -0.03, low, ha="center", va="top", fontsize=8)
        axes.text(place, 1.03, high, ha="center", va="bottom", fontsize=8)


def importance_bars(tables: Tables) -> Figure | None:
    """Shares of importance, a panel an objective; None where no arm has enough complete trials."""
    found = [row for row in importances(tables) if row.shares]
    if not found:
        return None
    objectives = list(tables.facts["objectives"])
    names = list(dict.fromkeys(name for row in found for name in row.shares))
    arms = list(dict.fromkeys(row.arm for row in found))
    with styled():
        height = 1.4 + 0.17 * len(names) * len(arms) + 0.1 * len(names)
        figure, grid = new_figure(len(objectives), height, columns=len(objectives))
        for axes, objective in zip(grid, objectives, strict=True):
            for place, arm in enumerate(arms):
                [shares] = [row.shares for row in found if (row.arm, row.objective) == (arm, objective)] or [{}]
                _draw_shares(axes, tables, arm, [shares.get(name, 0.0) for name in names], place, len(arms))
            axes.set_title(plain(objective))
            axes.set_xlabel("share of the importance")
            axes.set_yticks(range(len(names)), names, fontsize=8)
            axes.grid(False, axis="y")
        grid[0].invert_yaxis()
        legend_below(figure, 4)
        return figure


def _draw_shares(axes: Axes, tables: Tables, arm: str, shares: list[float], place: int, arms: int) -> None:
    """A bar for each parameter: the `place`-th of `arms` that share the room between two parameters."""
    colour, _, hatch = look(tables, arm)
    room = 0.8 / arms
    bars = axes.barh(np.arange(len(shares)) + (place + 0.5) * room - 0.4, shares, 0.9 * room, label=arm)
    for bar in bars:
        bar.set(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.5)


def rung_steps(tables: Tables) -> Figure | None:
    """How many trials of each arm were trained at least so far; None where there were no rungs."""
    found = standing.rungs(tables)
    if not found:
        return None
    with styled():
        figure, (axes,) = new_figure(1, 3.0)
        for arm in dict.fromkeys(rung.arm for rung in found):
            of_arm = [rung for rung in found if rung.arm == arm]
            colour, marker, _ = look(tables, arm)
            axes.plot(
                [rung.epochs for rung in of_arm],
                [rung.trials for rung in of_arm],
                color=colour, marker=marker, linestyle=dashes(tables, arm), drawstyle="steps-pre", label=arm,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epochs of the rung")
        axes.set_ylabel("trials trained so far")
        legend_below(figure, 4)
        return figure
