"""The Pareto fronts of a search, arm by arm, with what further seeds said about them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from absld_search.core.results import Tables
from absld_search.search.fronts import non_dominated, signs
from analysis import repeats
from analysis.drawing import DRAWN_AS_PATHS, Array, axis_label, drawn, legend_below, look, new_figure, styled
from analysis.sentences import in_per_cent


def pareto_front(tables: Tables) -> Figure:
    """Search values on val: trials as pale marks, each arm's front as steps, each arm's choice ringed.

    The first objective is drawn upwards, the second to the right (the trial number, where there is only one). Error
    bars are standard deviations over seeds. Where every trial has several seeds, a band lies between what every
    seed's front attains and what some seed's does.
    """
    with styled():
        figure, (axes,) = new_figure(1, 4.6)
        seeds = repeats.of_search(tables)
        for arm in tables.facts["arms"]:
            _draw_arm(axes, tables, arm, seeds)
        horizontal, vertical = shown_objectives(tables)
        axes.set_xlabel(axis_label(tables, horizontal).replace(";\n", "; "))
        axes.set_ylabel(axis_label(tables, vertical))
        axes.scatter([], [], s=150, facecolors="none", edgecolors="black", label="chosen for the confirm stage")
        if horizontal != "number":
            _draw_confirmed(axes, tables)
        _no_less_than_nothing(axes, tables)
        legend_below(figure, 3)
        axes.set_title(f"Pareto fronts, {tables.facts['workload']}: trials (pale) and fronts (steps)")
        return figure


def _no_less_than_nothing(axes: Axes, tables: Tables) -> None:
    """An error bar or a margin may pass 0; an axis of accuracies does not."""
    horizontal, vertical = (name.removeprefix("objective/") for name in shown_objectives(tables))
    if in_per_cent(horizontal) and axes.get_xlim()[0] < 0:
        axes.set_xlim(left=0)
    if in_per_cent(vertical) and axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)


def shown_objectives(tables: Tables) -> tuple[str, str]:
    """The columns to the right and upwards."""
    names = list(tables.facts["objectives"])
    return (f"objective/{names[1]}" if len(names) > 1 else "number"), f"objective/{names[0]}"


def _draw_arm(axes: Axes, tables: Tables, arm: str, seeds: dict[str, dict[int, Array]]) -> None:
    colour, marker, _ = look(tables, arm)
    wanted = (pc.field("arm") == arm) & (pc.field("state") == "COMPLETE")
    trials = tables.trials.filter(wanted)
    columns = shown_objectives(tables)
    x, y = (drawn(trials[name].to_numpy(), name) for name in columns)
    axes.scatter(x, y, s=26, color=colour, marker=marker, alpha=0.3, linewidths=0, rasterized=len(x) > DRAWN_AS_PATHS)
    directions = [tables.facts["objectives"].get(name.removeprefix("objective/"), "min") for name in columns]
    front = np.flatnonzero(non_dominated(np.column_stack([x, y]), directions))
    front = front[np.lexsort((y[front], x[front]))]
    axes.plot(
        x[front], y[front], color=colour, marker=marker, markersize=6, drawstyle=_steps(directions), linewidth=1.8,
        label=arm,
    )  # fmt: skip
    chosen = trials["chosen"].to_numpy(zero_copy_only=False)
    axes.scatter(x[chosen], y[chosen], s=150, facecolors="none", edgecolors="black", linewidths=1.2, zorder=3)
    if columns[0] != "number":
        _draw_seeds(axes, tables, trials.take(pa.array(front)), seeds, colour)
        _draw_attainment(axes, tables, trials, seeds, colour)


def _steps(directions: list[str]) -> Any:
    """Between two points the front is what both reach, so the steps turn away from the ideal corner."""
    return "steps-pre" if directions[0] == "max" else "steps-post"


def _draw_seeds(axes: Axes, tables: Tables, front: pa.Table, seeds: dict[str, dict[int, Array]], colour: str) -> None:
    """The spread over seeds of the trials on a front, of those that have several."""
    for trial in front.select(["config"]).to_pylist():
        values = _both(tables, list(seeds.get(trial["config"], {}).values()))
        if len(values) > 1:
            (x, y), (dx, dy) = values.mean(axis=0), values.std(axis=0, ddof=1)
            axes.errorbar([x], [y], xerr=[dx], yerr=[dy], fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.7)


def _both(tables: Tables, rows: Any) -> Array:
    """Objectives (seeds, k) as (seeds, 2): to the right and upwards, as they are drawn."""
    names = list(tables.facts["objectives"])
    values = np.array(rows, dtype=float).reshape(-1, len(names))
    return np.column_stack([drawn(values[:, place], names[place]) for place in (1, 0)])


def _draw_attainment(
    axes: Axes, tables: Tables, trials: pa.Table, seeds: dict[str, dict[int, Array]], colour: str
) -> None:
    configs = trials["config"].to_pylist()
    common = set.intersection(*(set(seeds.get(config, {})) for config in configs)) if configs else set()
    if len(common) < 2:
        return
    by_seed = [_both(tables, [seeds[config][seed] for config in configs]) for seed in sorted(common)]
    ways = [tables.facts["objectives"][name] for name in list(tables.facts["objectives"])[1::-1]]
    levels, attained = attainment(by_seed, ways)
    low, high = attained.min(axis=0), attained.max(axis=0)
    low, high = (np.where(np.isfinite(edge), edge, np.nan) for edge in (low, high))
    step: Any = _steps(ways).removeprefix("steps-")
    axes.fill_between(levels, low, high, step=step, color=colour, alpha=0.15, linewidth=0)


def attainment(by_seed: list[Array], directions: list[str]) -> tuple[Array, NDArray[np.float64]]:
    """How far each seed's front reaches in the second objective, at every level of the first: (N,), (seeds, N).

    Not finite where a seed does not reach the level at all (Grunert da Fonseca et al., EMO 2001: the surface that k
    of n seeds attain is the k-th best along the first axis).
    """
    ways = signs(directions)
    gains = [values * ways for values in by_seed]
    levels = np.unique(np.concatenate([values[:, 0] for values in gains]))
    reached = np.array(
        [[values[values[:, 0] >= level, 1].max(initial=-np.inf) for level in levels] for values in gains]
    )
    order = np.argsort(levels * ways[0])
    return levels[order] * ways[0], reached[:, order] * ways[1]


def _draw_confirmed(axes: Axes, tables: Tables) -> None:
    """What each arm's choice reached on val in the confirm stage: its seeds, tied to what the search had seen."""
    label: str | None = "its confirm seeds on val, mean ± sd"
    for trial in tables.trials.filter(pc.field("chosen")).to_pylist():
        values = _both(tables, repeats.of_confirm(tables, trial["config"]))
        if trial["arm"] not in tables.facts["arms"] or len(values) < 2:
            continue
        colour, marker, _ = look(tables, trial["arm"])
        (x, y), (dx, dy) = values.mean(axis=0), values.std(axis=0, ddof=1)
        seen = _both(tables, [[trial[f"objective/{name}"] for name in tables.facts["objectives"]]])[0]
        axes.annotate("", (x, y), seen, arrowprops={"arrowstyle": "->", "color": colour, "linestyle": ":"})
        axes.errorbar([x], [y], xerr=[dx], yerr=[dy], fmt="none", ecolor=colour, elinewidth=1.2)
        axes.scatter(
            [x], [y], s=40, marker=marker, facecolors="white", edgecolors=colour, linewidths=1.4, zorder=4, label=label
        )
        label = None
