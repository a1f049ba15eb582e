"""Figures of a study, for a README and for the report: colour-blind safe, and told apart without colour too.

Accuracies are stored as fractions and drawn in per cent.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from absld_search.core.metrics import kind_of
from absld_search.core.results import Tables
from absld_search.search.fronts import non_dominated
from analysis.confirmed import Seed, confirm_trainings, confirmed, headline
from analysis.sentences import attack_label, in_per_cent, plain

# Okabe and Ito, "Color Universal Design", 2008; without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "--")
CLASSES_SHOWN = 20  # more bars than this cannot be read
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a "$" in a name is a dollar sign
}


def pareto_front(tables: Tables) -> Figure:
    """Search values on val: trials as pale marks, each arm's front as steps, each arm's choice ringed.

    The first objective is drawn upwards, the second to the right (the trial number, where there is only one).
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(1, 7.2, 4.6)
        for arm in tables.facts["arms"]:
            _draw_arm(axes, tables, arm)
        horizontal, vertical = _shown_objectives(tables)
        axes.set_xlabel(_axis_label(tables, horizontal))
        axes.set_ylabel(_axis_label(tables, vertical))
        axes.scatter([], [], s=150, facecolors="none", edgecolors="black", label="chosen for the confirm stage")
        figure.legend(loc="outside lower left", ncols=3)
        axes.set_title(f"Pareto fronts of the search, {tables.facts['workload']}: trials (pale) and fronts (steps)")
        return figure


def class_bars(tables: Tables) -> Figure | None:
    """Accuracy of each class on test under the headline's attack, hardest first, sd over seeds; None if nothing is."""
    seeds = _attacked(tables)
    if not seeds:
        return None
    values = {arm: np.stack([seed.attacked for seed in found]) for arm, found in seeds.items()}  # (seeds, C)
    order = _by_difficulty(list(values.values()))[:CLASSES_SHOWN]
    with mpl.rc_context(STYLE):
        figure, (axes,) = _figure(1, 7.2, 4.0)
        width = 0.8 / len(values)
        for place, (arm, robust) in enumerate(values.items()):
            _draw_bars(
                axes,
                tables,
                arm,
                robust[:, order],
                np.arange(len(order)) + (place + 0.5) * width - 0.4,
                width,
            )
        names = [tables.facts["classes"][c] for c in order]
        axes.set_xticks(range(len(order)), names)
        if max(map(len, names)) * len(names) > 80:  # side by side they would touch
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.grid(False, axis="x")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("class, hardest first" + _cut_note(tables, order))
        axes.set_ylabel(f"robust accuracy on test\n(% of images, {_attack(tables, headline(tables))})")
        figure.legend(loc="outside lower left", ncols=4)
        axes.set_title(_bars_title(seeds))
        return figure


def temperatures(tables: Tables) -> Figure | None:
    """Temperature of each class over the epochs, mean over the confirm seeds; None where no arm logged any.

    One row an arm, a column each for the adversarial and the clean set; dark is a hard class.
    """
    curves = {arm: found for arm in tables.facts["arms"] if (found := _temperature_curves(tables, arm))}
    if not curves:
        return None
    measured = [np.stack([seed.attacked for seed in found]) for found in _attacked(tables).values()]
    order = _by_difficulty(measured) if measured else np.arange(len(tables.facts["classes"]))
    sides = [side for side in ("adv", "clean") if any(side in found for found in curves.values())]
    with mpl.rc_context(STYLE):
        figure, grid = _figure(len(curves) * len(sides), 7.2, 0.7 + 1.9 * len(curves), columns=len(sides))
        # Without viridis' last tenth, which is too pale on white.
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, max(len(order), 2)))
        colours = ListedColormap(list(shades))
        for axes, (arm, side) in zip(grid, [(a, s) for a in curves for s in sides], strict=True):
            _draw_temperatures(axes, tables, curves[arm].get(side, {}), order, colours)
            axes.set_title(f"{arm}, {'adversarial' if side == 'adv' else side} labels")
        figure.supxlabel("epoch", fontsize=10)
        figure.supylabel("class temperature (no unit, log scale; dashed: bounds)", fontsize=10)
        _class_scale(figure, grid, tables, order, colours)
        return figure


def _figure(panels: int, width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(panels // columns, columns, sharex=True, sharey=True, squeeze=False)
    return figure, list(grid.flat)


def _shown_objectives(tables: Tables) -> tuple[str, str]:
    names = list(tables.facts["objectives"])
    return (f"objective/{names[1]}" if len(names) > 1 else "number"), f"objective/{names[0]}"


def _axis_label(tables: Tables, column: str) -> str:
    if column == "number":
        return "trial number"
    name = column.removeprefix("objective/")
    better = "higher" if tables.facts["objectives"][name] == "max" else "lower"
    unit = f"% of images, {_attack(tables, kind_of(name))}" if in_per_cent(name) else "no unit"
    return f"{plain(name)} on val\n({unit}; {better} is better)"


def _attack(tables: Tables, kind: str) -> str:
    eps = tables.facts.get("eps")
    name = attack_label(kind)
    return name if eps is None or kind == "clean" else f"{name}, eps {eps:.3g}"


def _look(tables: Tables, arm: str) -> tuple[str, str, str]:
    """Colour, marker and hatch of an arm; beyond seven arms colours return, with other markers and hatches."""
    index = tables.facts["arms"].index(arm)
    other = index + index // len(COLOURS)
    return COLOURS[index % len(COLOURS)], MARKERS[other % len(MARKERS)], HATCHES[other % len(HATCHES)]


def _draw_arm(axes: Axes, tables: Tables, arm: str) -> None:
    colour, marker, _ = _look(tables, arm)
    wanted = (pc.field("arm") == arm) & (pc.field("state") == "COMPLETE")
    trials = tables.trials.filter(wanted)
    columns = _shown_objectives(tables)
    x, y = (_drawn(trials[name].to_numpy(), name) for name in columns)
    axes.scatter(x, y, s=26, color=colour, marker=marker, alpha=0.3, linewidths=0)
    directions = [tables.facts["objectives"].get(name.removeprefix("objective/"), "min") for name in columns]
    front = np.flatnonzero(non_dominated(np.column_stack([x, y]), directions))
    front = front[np.lexsort((y[front], x[front]))]
    # Between two points the front is what both reach, so the steps turn away from the ideal corner.
    steps = "steps-pre" if directions[0] == "max" else "steps-post"
    axes.plot(
        x[front],
        y[front],
        color=colour,
        marker=marker,
        markersize=6,
        drawstyle=steps,
        linewidth=1.8,
        label=arm,
    )
    chosen = trials["chosen"].to_numpy(zero_copy_only=False)
    axes.scatter(x[chosen], y[chosen], s=150, facecolors="none", edgecolors="black", linewidths=1.2, zorder=3)


def _drawn(values: NDArray[Any], column: str) -> NDArray[np.float64]:
    return values.astype(float) * (100 if in_per_cent(column) else 1)


def _attacked(tables: Tables) -> dict[str, list[Seed]]:
    """Arm -> its confirm trainings with the headline's attack on test; arms without any are absent."""
    found = {arm: [s for s in seeds.values() if s.n.any()] for arm, seeds in confirmed(tables).items()}
    return {arm: seeds for arm, seeds in found.items() if seeds}


def _by_difficulty(robust: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """Class indices (C,), hardest first, by the mean over arms and seeds; robust: (seeds, C) of each arm."""
    return np.argsort(np.mean([of_arm.mean(axis=0) for of_arm in robust], axis=0), kind="stable")


def _draw_bars(
    axes: Axes, tables: Tables, arm: str, robust: NDArray[np.float64], x: NDArray[Any], width: float
) -> None:
    colour, _, hatch = _look(tables, arm)
    sd = 100 * robust.std(axis=0, ddof=1) if len(robust) > 1 else None
    bars = axes.bar(x, 100 * robust.mean(axis=0), 0.92 * width, yerr=sd, label=arm, error_kw={"elinewidth": 1})
    for bar in bars:
        bar.set(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.5)


def _bars_title(seeds: dict[str, list[Seed]]) -> str:
    counts = np.concatenate([seed.n[seed.n > 0] for found in seeds.values() for seed in found])
    images = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    numbers = sorted({len(found) for found in seeds.values()})
    span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"Robust accuracy by class: mean and sd over {span} seeds, {images} test images per class"


def _cut_note(tables: Tables, order: NDArray[np.int64]) -> str:
    total = len(tables.facts["classes"])
    return f" (the {len(order)} hardest of {total})" if len(order) < total else ""


def _temperature_curves(tables: Tables, arm: str) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Side ("adv", "clean") -> class -> (epochs, 2): epoch and mean temperature over the confirm seeds."""
    keys = pa.array([row["training"] for row in confirm_trainings(tables, arm)], pa.string())  # typed even when empty
    wanted = pc.field("training").isin(keys) & pc.starts_with(pc.field("metric"), "temperature_")
    means = tables.epochs.filter(wanted).group_by(["metric", "epoch"]).aggregate([("value", "mean")])
    curves: dict[str, dict[int, NDArray[np.float64]]] = {}
    for metric in sorted(pc.unique(means["metric"]).to_pylist()):
        side, _, index = metric.removeprefix("temperature_").partition("/class_")
        points = means.filter(pc.field("metric") == metric).sort_by("epoch")
        curves.setdefault(side, {})[int(index)] = np.column_stack([points["epoch"], points["value_mean"]])
    return curves


def _draw_temperatures(
    axes: Axes,
    tables: Tables,
    curves: dict[int, NDArray[np.float64]],
    order: NDArray[np.int64],
    colours: Colormap,
) -> None:
    for rank, index in enumerate(order):
        if index in curves:
            axes.plot(*curves[index].T, color=colours(rank), linewidth=1.4)
    for bound in tables.facts.get("temperature_bounds", ()):
        axes.axhline(bound, color="#555555", linewidth=0.9, linestyle="--")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _class_scale(figure: Figure, grid: list[Axes], tables: Tables, order: NDArray[np.int64], colours: Colormap) -> None:
    norm = BoundaryNorm(np.arange(len(order) + 1) - 0.5, max(len(order), 2))
    scale = figure.colorbar(ScalarMappable(norm, colours), ax=grid, label="class, hardest at the bottom", aspect=30)
    every = max(1, len(order) // 10)
    scale.set_ticks(range(0, len(order), every), labels=[tables.facts["classes"][c] for c in order[::every]])
    scale.ax.minorticks_off()
