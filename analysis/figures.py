"""The figures of a report, in its order: each by the name of its file, with its title and what it shows."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from matplotlib.figure import Figure

from absld_search.core.results import Tables
from analysis.class_figures import CLASSES_SHOWN as CLASSES_SHOWN
from analysis.class_figures import class_bars, temperatures
from analysis.drawing import styled
from analysis.front_figure import pareto_front
from analysis.search_figures import importance_bars, parallel_coordinates, rung_steps, spending


class Drawing(NamedTuple):
    """A figure of the report: its title, what draws it (None where there is nothing to draw), and its legend."""

    title: str
    draw: Callable[[Tables], Figure | None]
    legend: str


FIGURES: dict[str, Drawing] = {
    "pareto_front": Drawing(
        "Pareto fronts of the search",
        pareto_front,
        "Each step line is an arm's front on val: no trial of the arm beats those on it. Ringed: chosen by the "
        "selection rule; its arrow leads to what the confirm seeds reach on val, mean and sd, which shows how much of "
        "the search's value was luck. Error bars on a front: sd over the search's own seeds. A band, where every "
        "trial has several seeds: between the attainment surface of every seed and that of any.",
    ),
    "class_bars": Drawing(
        "Robust accuracy by class",
        class_bars,
        "Classes from the hardest to the easiest by the mean over all arms; error bars: sd over the confirm seeds.",
    ),
    "temperatures": Drawing(
        "Temperatures of the classes",
        temperatures,
        "Mean over the confirm seeds; dark is a hard class. Dashed: the bounds within which temperatures may move.",
    ),
    "spending": Drawing(
        "What the search had reached for how much",
        spending,
        "Time of training, of all trials so far, also failed and stopped ones. Both are of values on val that "
        "were selected on, of one search for each arm: they say how a search went, not which arm is better.",
    ),
    "parallel_coordinates": Drawing(
        "Parameters and objectives of the trials",
        parallel_coordinates,
        "A line is a trial; strong lines are on their arm's front. An arm that does not tune a parameter skips its "
        "axis; a parameter that has one value in all trials has none.",
    ),
    "importances": Drawing(
        "Importance of the parameters for each objective",
        importance_bars,
        "PED-ANOVA: how much a parameter tells the best tenth of an arm's trials (of fewer than 50, the best five) "
        "from the rest, in shares of 1. It speaks of the ranges that were searched; with few trials it is rough.",
    ),
    "rungs": Drawing(
        "Early stopping",
        rung_steps,
        "How many trials of an arm were trained at least so far; the others were stopped on a rung before.",
    ),
}


def drawn(tables: Tables, names: Iterable[str] = tuple(FIGURES)) -> dict[str, Figure]:
    """Name -> figure, of those of `names` that have something to draw."""
    with styled():
        found = {name: FIGURES[name].draw(tables) for name in names}
        figures = {name: figure for name, figure in found.items() if figure is not None}
        for figure in figures.values():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # once laid out; every file it is saved to would do it again
    return figures
