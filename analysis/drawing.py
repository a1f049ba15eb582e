"""What all figures share: a palette for the colour-blind, marks that tell arms apart without colour, words on axes.

Accuracies are stored as fractions and drawn in per cent.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from absld_search.core.files import replacing
from absld_search.core.metrics import NAMES, kind_of
from absld_search.core.results import Tables
from absld_search.search import palette
from absld_search.search.palette import COLOURS
from analysis.sentences import attack_label, in_per_cent, plain

Array = NDArray[np.float64]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "--")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
DRAWN_AS_PATHS = 600  # marks or lines; more of them go into a picture, or the page weighs many megabytes
WIDTH, LEGEND_ROW = 6.0, 0.2  # inches; on a phone, 23 rem wide, letters of 10 points are still read
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
    "pdf.fonttype": 42,  # letters that an editor can select; publishers refuse Type 3
}


def styled() -> Any:
    """A context in which figures are made and saved as they should look."""
    return mpl.rc_context(STYLE)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of the file's ending; the same study gives the same file."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
    with styled(), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)


def new_figure(panels: int, height: float, columns: int = 1, **shared: bool) -> tuple[Figure, list[Axes]]:
    """A figure of `height` inches and its panels, row by row; axes are shared unless said otherwise."""
    figure = Figure(figsize=(WIDTH, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    sharing = {"sharex": True, "sharey": True, **shared}
    grid = figure.subplots(-(-panels // columns), columns, squeeze=False, **sharing)  # type: ignore[call-overload]
    axes = list(grid.flat)
    for spare in axes[panels:]:
        spare.set_visible(False)
    return figure, axes[:panels]


def look(tables: Tables, arm: str) -> tuple[str, str, str]:
    """Colour, marker and hatch of an arm; beyond seven arms colours return, with other markers and hatches."""
    place = _turn(tables, arm)
    return palette.of_arm(tables.facts["arms"], arm), MARKERS[place], HATCHES[place]


def dashes(tables: Tables, arm: str) -> Any:
    """The line style of an arm; where its colour returns, the style is another: 49 arms are told apart."""
    return DASHES[_turn(tables, arm)]


def _turn(tables: Tables, arm: str) -> int:
    """Which marker, hatch and line style: one further at each return of the colours, of which there are as many."""
    index: int = tables.facts["arms"].index(arm)
    return (index + index // len(COLOURS)) % len(COLOURS)


def say_inside(axes: Axes, text: str) -> None:
    """Why a panel is empty, in its middle."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9)


def legend_below(figure: Figure, columns: int) -> None:
    """A legend below the panels; the figure grows by its rows, so that many arms take nothing from the panels."""
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns)
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(rows - 2, 0))


def drawn(values: Any, column: str) -> Array:
    """Values of an objective, or of the column that holds one, as they are drawn."""
    found: Array = np.asarray(values, dtype=float) * (100 if in_per_cent(column) else 1)
    return found


def axis_label(tables: Tables, column: str) -> str:
    """What an axis shows: an objective on val with its unit, its attack and its better direction."""
    if column == "number":
        return "trial number"
    name = column.removeprefix("objective/")
    better = "higher" if {**NAMES, **tables.facts["objectives"]}[name] == "max" else "lower"
    unit = f"% of images, {attack_words(tables, kind_of(name))}" if in_per_cent(name) else "no unit"
    return f"{plain(name)} on val\n({unit};\n{better} is better)"


def attack_words(tables: Tables, kind: str) -> str:
    """An attack's name with its radius."""
    eps = tables.facts.get("eps")
    name = attack_label(kind)
    return name if eps is None or kind == "clean" else f"{name}, eps {eps:.3g}"
