"""A finished study for a notebook: its tables, its front, its comparisons and its figures.

    from analysis import load_study
    s = load_study("runs/ablation_dual_temps-digits")
    s.front()
    s.table()
    s.compare("dual", "product")
    s.plot_front()

Reads the stored Parquet tables and imports neither Ray nor torch; starts nothing and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from absld_search.core import results
from absld_search.words import UsageError, require_known
from analysis import confirmed, loading, pairs
from analysis.answer import Answer, answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARED = ("measure", "mean", "low", "high", "low_both", "high_both", "p", "holm_p", "n", "decided")


def load_study(folder: Path | str) -> StudyView:
    """The study in `folder`, which is OUT/NAME of the command that made it.

    Raises: FileNotFoundError where the folder is no study or has no results yet.
    """
    return StudyView(Path(folder))


class StudyView:
    """What a study found. Accuracies are fractions in [0, 1]; every frame is the caller's own to change.

    `tables`: what a report shows of it; `images` reads the rest when asked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables = folder, loading.load(folder)

    def __repr__(self) -> str:
        facts = self.tables.facts
        return f"<study {facts['study']}: {len(self.tables.trials)} trials in {', '.join(self.arms)}>"

    @property
    def question(self) -> str:
        """What was asked."""
        return str(self.tables.facts["question"])

    @property
    def arms(self) -> list[str]:
        """The arms in order; the first is the one that others are compared with."""
        return list(self.tables.facts["arms"])

    @property
    def classes(self) -> list[str]:
        """Names of the classes, (C,)."""
        return list(self.tables.facts["classes"])

    @property
    def objectives(self) -> dict[str, str]:
        """What the search optimised on val -> "max" or "min"."""
        return dict(self.tables.facts["objectives"])

    @cached_property
    def answer(self) -> Answer:
        """The answer with its rows, comparisons and caveats, as the report shows it."""
        return answer(self.tables)

    def trials(self) -> pd.DataFrame:
        """One row a trial: arm, state, reason, objectives on val, its parameters, and where it stands.

        A parameter that one arm searches and another keeps has a value for both; nan where an arm has none.
        """
        frame = self.tables.trials.to_pandas()
        params = pd.DataFrame([json.loads(text) for text in frame.pop("params")], index=frame.index)
        words = {arm: loading.words_of(self.tables.facts, arm) for arm in self.arms}
        for name in params:
            kept = {arm: found[name] for arm, found in words.items() if name in found}
            params[name] = params[name].where(params[name].notna(), frame["arm"].map(kept))
        frame = frame.rename(columns={f"objective/{name}": name for name in self.objectives})
        return pd.concat([frame, params.drop(columns=[c for c in params if c in frame])], axis=1)

    def front(self, arm: str | None = None) -> pd.DataFrame:
        """The trials on the joint front of all arms, or on one arm's own, best first objective first; ties stay.

        Values are the search's, on val. Raises: UsageError for an unknown arm.
        """
        found = self.trials()
        on = found["pareto"] if arm is None else found["pareto_arm"] & (found["arm"] == self._arm("arm", arm))
        first, direction = next(iter(self.objectives.items()))
        return found[on].sort_values(first, ascending=direction == "min").reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """One row an arm: mean and sample standard deviation over the confirm seeds, on test, by measure.

        Columns are (measure, "mean"), (measure, "sd") and (measure, "n"); n is the number of seeds. An arm that was not
        confirmed has nan.
        """
        rows = {row.arm: row.measures for row in self.answer.rows}
        names = list(dict.fromkeys(name for measures in rows.values() for name in measures))
        cells = {
            arm: {(name, of): getattr(measures[name], of) if name in measures else np.nan
                  for name in names for of in ("mean", "sd", "n")}
            for arm, measures in rows.items()
        }  # fmt: skip
        frame = pd.DataFrame.from_dict(cells, orient="index")
        frame.index.name = "arm"
        return frame

    def seeds(self) -> pd.DataFrame:
        """One row a confirm training: arm, seed, and every measure on test."""
        found = confirmed.confirmed(self.tables)
        rows = [{"arm": arm, "seed": index, **seed.measures} for arm, of in found.items() for index, seed in of.items()]
        return pd.DataFrame(rows, columns=None if rows else ["arm", "seed"])

    def class_accuracies(self, arm: str | None = None) -> pd.DataFrame:
        """One row an arm, seed and class: its accuracy on test under the answer's attack, and its n images."""
        found = confirmed.confirmed(self.tables)
        wanted = found if arm is None else {self._arm("arm", arm): found[arm]}
        rows = [
            {"arm": name, "seed": index, "class": label, "accuracy": float(seed.attacked[k]), "n": int(seed.n[k])}
            for name, of in wanted.items()
            for index, seed in of.items()
            for k, label in enumerate(self.classes)
        ]
        return pd.DataFrame(rows, columns=["arm", "seed", "class", "accuracy", "n"])

    def images(self, trainings: Collection[str] | None = None) -> pd.DataFrame:
        """The verdict on every image: training, split, attack, image, label, correct.

        `trainings`: of these alone; all of a large search may be more than memory.
        """
        return results.read(self.folder, "images", trainings).to_pandas()

    def compare(self, first: str, second: str) -> pd.DataFrame:
        """`second` minus `first` in the compared measures, paired by confirm seed, as fractions.

        low and high: the 95 % interval for new seeds on these images (the exact sign-flip test turned around);
        low_both and high_both: for new seeds and new images; p: the test's; holm_p: corrected for all pairs of arms
        that could have been asked about, or, for pairs with the study's first arm, which were planned, for those
        alone; decided: holm_p < 0.05 and the interval over seeds without 0. Empty where no seed is common.
        Raises: UsageError for an unknown arm, or one and the same twice.
        """
        for what, name in (("first", first), ("second", second)):
            self._arm(what, name)
        if first == second:
            raise UsageError(f"compare: {first!r} cannot be compared with itself.")
        found = pairs.compare(self.tables, first, second)
        rows = [[getattr(one, name) for name in COMPARED] for one in found]
        frame = pd.DataFrame(rows, columns=list(COMPARED)).set_index("measure")
        return frame.rename(columns={"mean": "difference", "n": "seeds"})

    def plot_front(self) -> Figure:
        """The search's trials on val, each arm's front as steps, its choice ringed."""
        from analysis import figures

        return figures.pareto_front(self.tables)

    def plot_classes(self) -> Figure | None:
        """Each class's accuracy on test under the answer's attack, arm against arm, hardest first; None if nothing is
        confirmed."""
        from analysis import figures

        return figures.class_bars(self.tables)

    def plot_temperatures(self) -> Figure | None:
        """Each class's temperatures over the epochs, by arm; None where no arm has any."""
        from analysis import figures

        return figures.temperatures(self.tables)

    def _arm(self, what: str, name: str) -> str:
        return require_known(what, name, self.arms)
