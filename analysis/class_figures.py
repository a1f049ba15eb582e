"""What became of each class: accuracies on test, and temperatures over the epochs, arm against arm."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from absld_search.core.results import Tables
from absld_search.search.palette import COLOURS
from analysis.confirmed import Seed, confirm_trainings, confirmed, headline, split
from analysis.drawing import attack_words, legend_below, look, new_figure, say_inside, styled
from analysis.loading import words_of

CLASSES_SHOWN = 20  # more bars than this cannot be read
MANY_CURVES = 30  # in one panel; more go into a picture


def class_bars(tables: Tables) -> Figure | None:
    """Accuracy of each class on test under the headline's attack, hardest first, sd over seeds; None if nothing is.

    Seven arms a panel, one colour each: of more side by side nobody could see the bars.
    """
    seeds = _attacked(tables)
    if not seeds:
        return None
    values = {arm: np.stack([seed.attacked for seed in found]) for arm, found in seeds.items()}  # (seeds, C)
    order = _by_difficulty(list(values.values()))[:CLASSES_SHOWN]
    with styled():
        panels = -(-len(values) // len(COLOURS))
        figure, grid = new_figure(panels, 4.0 + 2.2 * (panels - 1))
        width = 0.8 / min(len(values), len(COLOURS))
        for place, (arm, robust) in enumerate(values.items()):
            x = np.arange(len(order)) + (place % len(COLOURS) + 0.5) * width - 0.4
            _draw_bars(grid[place // len(COLOURS)], tables, arm, robust[:, order], x, width)
        axes = grid[-1]
        names = [tables.facts["classes"][c] for c in order]
        axes.set_xticks(range(len(order)), names)
        if max(map(len, names)) * len(names) > 80:  # side by side they would touch
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        for panel in grid:
            panel.grid(False, axis="x")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("class, hardest first" + _cut_note(tables, order))
        measured = f"robust accuracy on test\n(% of images, {attack_words(tables, headline(tables))})"
        figure.supylabel(measured, fontsize=10) if panels > 1 else axes.set_ylabel(measured)
        legend_below(figure, 4)
        grid[0].set_title(_bars_title(seeds))
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
    with styled():
        figure, grid = new_figure(len(curves) * len(sides), 0.7 + 1.9 * len(curves), columns=len(sides))
        # Without viridis' last tenth, which is too pale on white.
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, max(len(order), 2)))
        colours = ListedColormap(list(shades))
        for axes, (arm, side) in zip(grid, [(a, s) for a in curves for s in sides], strict=True):
            _draw_temperatures(axes, tables, curves[arm].get(side, {}), order, colours)
            axes.set_title(f"{arm}, {'adversarial' if side == 'adv' else side} labels")
            if side not in curves[arm]:
                say_inside(axes, _why_none(tables, arm, side))
        figure.supxlabel("epoch", fontsize=10)
        label = "class temperature (no unit, log scale; dashed: bounds)"
        figure.supylabel(label if len(curves) > 2 else label.replace(", log", ",\nlog"), fontsize=10)
        _class_scale(figure, grid, tables, order, colours)
        return figure


def _why_none(tables: Tables, arm: str, side: str) -> str:
    """What stands in a panel without curves."""
    if words_of(tables.facts, arm).get("coupling") == "shared" and side == "clean":
        return "the same as for\nadversarial labels"
    return "no temperatures here"


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
    colour, _, hatch = look(tables, arm)
    sd = 100 * robust.std(axis=0, ddof=1) if len(robust) > 1 else None
    bars = axes.bar(x, 100 * robust.mean(axis=0), 0.92 * width, yerr=sd, label=arm, error_kw={"elinewidth": 1})
    for bar in bars:
        bar.set(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.5)


def _bars_title(seeds: dict[str, list[Seed]]) -> str:
    counts = np.concatenate([seed.n[seed.n > 0] for found in seeds.values() for seed in found])
    images = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    numbers = sorted({len(found) for found in seeds.values()})
    span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"Mean and sd over {span} seeds, {images} test images per class"


def _cut_note(tables: Tables, order: NDArray[np.int64]) -> str:
    total = len(tables.facts["classes"])
    return f" (the {len(order)} hardest of {total})" if len(order) < total else ""


def _temperature_curves(tables: Tables, arm: str) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Side ("adv", "clean") -> class -> (epochs, 2): epoch and mean temperature over the confirm seeds."""
    keys = pa.array([row["training"] for row in confirm_trainings(tables, arm)], pa.string())  # typed even when empty
    wanted = pc.field("training").isin(keys) & pc.starts_with(pc.field("metric"), "temperature_")
    means = tables.epochs.filter(wanted).group_by(["metric", "epoch"]).aggregate([("value", "mean")])
    curves: dict[str, dict[int, NDArray[np.float64]]] = {}
    for metric, points in sorted(split(means.sort_by("epoch"), "metric").items()):
        side, _, index = metric.removeprefix("temperature_").partition("/class_")
        curves.setdefault(side, {})[int(index)] = np.column_stack([points["epoch"], points["value_mean"]])
    return curves


def _draw_temperatures(
    axes: Axes,
    tables: Tables,
    curves: dict[int, NDArray[np.float64]],
    order: NDArray[np.int64],
    colours: Colormap,
) -> None:
    shown = {index: colours(rank) for rank, index in enumerate(order) if index in curves}
    lines, shades = [curves[index] for index in shown], list(shown.values())
    # All of them as one artist: a picture each would cost seconds with a hundred classes.
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=1.4, rasterized=len(lines) > MANY_CURVES))
    axes.autoscale_view()
    for bound in tables.facts.get("temperature_bounds", ()):
        axes.axhline(bound, color="#555555", linewidth=0.9, linestyle="--")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # there is no half of an epoch


def _class_scale(figure: Figure, grid: list[Axes], tables: Tables, order: NDArray[np.int64], colours: Colormap) -> None:
    norm = BoundaryNorm(np.arange(len(order) + 1) - 0.5, max(len(order), 2))
    scale = figure.colorbar(ScalarMappable(norm, colours), ax=grid, label="class, hardest at the bottom", aspect=30)
    every = max(1, len(order) // 10)
    scale.set_ticks(range(0, len(order), every), labels=[tables.facts["classes"][c] for c in order[::every]])
    scale.ax.minorticks_off()
