"""From the trainings of benchmarks/fidelity.py to tables, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ranking, timing
from benchmarks.ranking import Array

OBJECTIVES = {
    "robust_accuracy": "robust", "robust_cvar": "CVaR-20 %", "worst_class_robust_accuracy": "worst class",
}  # fmt: skip
WAYS = ("truncated", "compressed", "clock", "trunk")
FAILED = -1.0  # below every accuracy: a training that ended in nan ranks last


@dataclass
class Found:
    """(configurations, seeds) of every objective, by way and budget; "full test" holds the truth."""

    workload: str
    configs: int
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]
    values: dict[tuple[str, int, str], Array] = field(default_factory=dict)

    def put(self, way: str, budget: int, number: int, seed: int, metrics: Mapping[str, float]) -> None:
        for name in OBJECTIVES:
            empty = np.full((self.configs, len(self.seeds)), FAILED)
            self.values.setdefault((way, budget, name), empty)[number, seed] = metrics.get(name, FAILED)

    @property
    def whole(self) -> int:
        return self.budgets[-1]

    def truth(self, name: str, seed: int, kind: str = "full test") -> Array:
        """(n,): on test at the whole budget, the mean of all seeds but this one, which is thus fresh."""
        values = self.values[kind, self.whole, name]
        return values.mean(1) if values.shape[1] == 1 else np.delete(values, seed, 1).mean(1)

    def mean(self, of: Callable[[Array, Array], float], way: str, budget: int, name: str) -> Callable[[Any], float]:
        """rows -> the mean over seeds of `of`(a rung's values, the truth) on those configurations."""
        cheap = self.values[way, budget, name]
        pairs = [(cheap[:, seed], self.truth(name, seed)) for seed in range(cheap.shape[1])]
        return lambda rows: float(np.mean([of(a[rows], b[rows]) for a, b in pairs]))


def rows(found: Found) -> list[dict[str, Any]]:
    """A row for each way, budget and objective."""
    asked = [(way, budget) for budget in found.budgets[:-1] for way in WAYS]
    asked += [("full", found.whole), ("trunk", found.whole)]
    return [_row(found, way, budget, name) for name in OBJECTIVES for way, budget in asked]


def _row(found: Found, way: str, budget: int, name: str) -> dict[str, Any]:
    agreement = found.mean(ranking.spearman, way, budget, name)
    parts = list(ranking.subsets(found.configs))
    lost, kept = (found.mean(of, way, budget, name) for of in (ranking.regret, ranking.survives))
    return {
        "way": way,
        "budget": budget,
        "objective": name,
        "spearman": agreement(np.arange(found.configs)),
        "interval": ranking.interval(agreement, found.configs),
        "regret": float(np.mean([lost(part) for part in parts])),
        "survives": float(np.mean([kept(part) for part in parts])),
    }


def differences(found: Found) -> list[dict[str, Any]]:
    """Spearman of one way less another's at the same budget, on the same configurations and seeds."""
    pairs = [("compressed", "truncated"), ("trunk", "truncated"), ("trunk", "compressed"), ("clock", "compressed")]
    return [
        _difference(found, first, second, budget, name)
        for name in OBJECTIVES
        for budget in found.budgets[:-1]
        for first, second in pairs
    ]


def _difference(found: Found, first: str, second: str, budget: int, name: str) -> dict[str, Any]:
    one, other = (found.mean(ranking.spearman, way, budget, name) for way in (first, second))

    def gain(places: Any) -> float:
        return one(places) - other(places)

    place = {"first": first, "second": second, "budget": budget, "objective": name}
    everywhere = gain(np.arange(found.configs))
    return {**place, "difference": everywhere, "interval": ranking.interval(gain, found.configs)}


def halvings(found: Found, leaves: Mapping[int, int]) -> list[dict[str, Any]]:
    """Successive halving of two thirds of the configurations, each way: mean regret and epochs for all of them."""
    return [_halving(found, way, name, leaves) for name in OBJECTIVES for way in ("full", *WAYS)]


def _halving(found: Found, way: str, name: str, leaves: Mapping[int, int]) -> dict[str, Any]:
    budgets = found.budgets if way != "full" else found.budgets[-1:]
    last = "trunk" if way == "trunk" else "full"
    steps = [found.values[last if b == found.whole else way, b, name] for b in budgets]
    lost = []
    for part in ranking.subsets(found.configs):
        for seed in range(len(found.seeds)):
            truth = found.truth(name, seed)[part]
            winner, _ = ranking.halving([values[part, seed] for values in steps])
            lost.append(truth.max() - truth[winner])
    entered = ranking.halving([values[:, 0] for values in steps])[1]
    epochs = sum(n * cost for n, cost in zip(entered, _costs(way, budgets, leaves), strict=True))
    return {"way": way, "objective": name, "regret": float(np.mean(lost)), "epochs": epochs}


def _costs(way: str, budgets: tuple[int, ...], leaves: Mapping[int, int]) -> list[int]:
    """Epochs of each rung for one that climbed to it; `leaves`: where a trunk's branch of that length begins."""
    if way in ("compressed", "clock", "full"):
        return list(budgets)
    before = [0, *((leaves[budget] if way == "trunk" else budget) for budget in budgets)]
    return [budget - there for budget, there in zip(budgets, before, strict=False)]


def ends(found: Found) -> list[dict[str, Any]]:
    """The two schedules at the whole budget, on test: mean over configurations and seeds, and how they agree."""
    result = []
    for name in OBJECTIVES:
        step, wsd = (found.values[f"{way} test", found.whole, name].mean(1) for way in ("full", "trunk"))
        gain = wsd - step
        between = ranking.interval(lambda places, gain=gain: float(gain[places].mean()), found.configs)  # type: ignore[misc]
        result.append({"objective": name, "step": float(step.mean()), "wsd": float(wsd.mean()), "best_step": float(
            step.max()), "best_wsd": float(wsd.max()), "difference": float(gain.mean()), "interval": between,
            "spearman": ranking.spearman(step, wsd)})  # fmt: skip
    return result


def write(found: Found, leaves: Mapping[int, int], out: Path, image: Path) -> str:
    """OUT/<workload>.json and .md, and a picture of all that OUT holds; the Markdown is the answer."""
    facts: dict[str, Any] = {
        "workload": found.workload,
        "configs": found.configs,
        "seeds": list(found.seeds),
        "budgets": list(found.budgets),
        "rows": rows(found),
        "differences": differences(found),
        "halvings": halvings(found, leaves),
        "ends": ends(found),
    }
    timing.write(out, found.workload, facts)
    text = markdown(facts)
    (out / f"{found.workload}.md").write_text(text, encoding="utf-8")
    picture([json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))], image)
    return text


def markdown(facts: Mapping[str, Any]) -> str:
    """Five tables: agreement, decisions, differences between ways, successive halving, the two schedules' ends."""
    head = (
        f"{facts['workload']}: {facts['configs']} configurations, seeds {facts['seeds']}, budgets {facts['budgets']}."
    )
    parts = [_agreement(facts), _decisions(facts), _differences(facts), _halvings(facts), _ends(facts)]
    return "\n\n".join([head, *parts]) + "\n"


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def _of(several: list[dict[str, Any]], **place: Any) -> list[dict[str, Any]]:
    return [row for row in several if all(row[name] == value for name, value in place.items())]


def _rungs(facts: Mapping[str, Any]) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """(first cells, a row for each objective) of every rung."""
    places = dict.fromkeys((row["way"], row["budget"]) for row in facts["rows"])
    return [([way, str(budget)], _of(facts["rows"], way=way, budget=budget)) for way, budget in places]


def _between(value: float, ends: list[float], form: str, unit: float = 1) -> str:
    return f"{unit * value:{form}} [{unit * ends[0]:{form}}, {unit * ends[1]:{form}}]"


def _agreement(facts: Mapping[str, Any]) -> str:
    head = ["rung", "epochs", *(f"Spearman, {word}" for word in OBJECTIVES.values())]
    lines = [[*first, *(_between(row["spearman"], row["interval"], ".2f") for row in found)]
             for first, found in _rungs(facts)]  # fmt: skip
    return _table(head, lines)


def _decisions(facts: Mapping[str, Any]) -> str:
    asked = [f"{what}, {word}" for what in ("regret", "best survives") for word in OBJECTIVES.values()]
    lines = []
    for first, found in _rungs(facts):
        cells = [f"{100 * row['regret']:.1f}" for row in found] + [f"{row['survives']:.2f}" for row in found]
        lines.append([*first, *cells])
    return _table(["rung", "epochs", *asked], lines)


def _differences(facts: Mapping[str, Any]) -> str:
    places = dict.fromkeys((row["first"], row["second"], row["budget"]) for row in facts["differences"])
    lines = []
    for first, second, budget in places:
        found = _of(facts["differences"], first=first, second=second, budget=budget)
        cells = [_between(row["difference"], row["interval"], "+.2f") for row in found]
        lines.append([f"{first} less {second}", str(budget), *cells])
    return _table(["difference of Spearman", "epochs", *OBJECTIVES.values()], lines)


def _halvings(facts: Mapping[str, Any]) -> str:
    lines = []
    for way in ("full", *WAYS):
        found = _of(facts["halvings"], way=way)
        lines.append([way, str(found[0]["epochs"]), *(f"{100 * row['regret']:.1f}" for row in found)])
    return _table(["successive halving", "epochs", *(f"regret, {word}" for word in OBJECTIVES.values())], lines)


def _ends(facts: Mapping[str, Any]) -> str:
    head = ["whole training, test", "step, mean (best)", "wsd, mean (best)", "wsd less step", "Spearman"]
    lines = []
    for row in facts["ends"]:
        pair = [f"{100 * row[kind]:.1f} ({100 * row[f'best_{kind}']:.1f})" for kind in ("step", "wsd")]
        gain = _between(row["difference"], row["interval"], "+.1f", 100)
        lines.append([OBJECTIVES[row["objective"]], *pair, gain, f"{row['spearman']:.2f}"])
    return _table(head, lines)


def picture(several: list[Mapping[str, Any]], path: Path) -> None:
    """Spearman over budget, a panel for each objective and a row for each workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size, rows = (11, 3.6 * len(several)), len(several)
    figure, panels = pyplot.subplots(rows, 3, sharey=True, squeeze=False, figsize=size, layout="constrained")
    for line, facts in zip(panels, several, strict=True):
        for panel, name in zip(line, OBJECTIVES, strict=True):
            _panel(panel, facts, name)
        line[0].set_ylabel(f"{facts['workload']}: Spearman with the end")
    panels[0, 0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel: Any, facts: Mapping[str, Any], name: str) -> None:
    for place, way in enumerate(WAYS):
        _line(panel, _of(facts["rows"], objective=name, way=way), way, 1.04 ** (place - 1.5))
    ceiling = _of(facts["rows"], objective=name, way="full")[0]["spearman"]
    panel.axhline(ceiling, color="grey", linestyle="--", label="whole training")
    panel.set(title=OBJECTIVES[name], xscale="log", xlabel="epochs of the rung", xticks=facts["budgets"])
    panel.set_xticklabels([str(budget) for budget in facts["budgets"]])
    panel.minorticks_off()


def _line(panel: Any, mine: list[dict[str, Any]], way: str, shift: float) -> None:
    """One way's points with their intervals, moved sideways so that they can be told apart."""
    at = [row["budget"] * shift for row in mine]
    middle = np.array([row["spearman"] for row in mine])
    ends = np.array([row["interval"] for row in mine]).T
    panel.errorbar(at, middle, abs(ends - middle), marker="o", capsize=2, label=way)
