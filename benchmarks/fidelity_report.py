"""From the trainings of benchmarks/fidelity.py to tables, JSON and a picture."""

from __future__ import annotations

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


def write(found: Found, leaves: Mapping[int, int], out: Path) -> str:
    """OUT/<workload>.json, .md and .png; the Markdown is the answer."""
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
    picture(facts, out / f"{found.workload}.png")
    return text


def markdown(facts: Mapping[str, Any]) -> str:
    """The tables."""
    head = f"{facts['workload']}: {facts['configs']} configurations, seeds {facts['seeds']}, budgets {facts['budgets']}"
    by = {(row["way"], row["budget"], row["objective"]): row for row in facts["rows"]}
    words = list(OBJECTIVES.values())
    lines = [f"{head}.", "", "| rung | epochs | " + " | ".join(f"Spearman, {word}" for word in words)
             + " | " + " | ".join(f"regret, {word}" for word in words)
             + " | " + " | ".join(f"best survives, {word}" for word in words) + " |", "|---" * 11 + "|"]  # fmt: skip
    for way, budget in dict.fromkeys((row["way"], row["budget"]) for row in facts["rows"]):
        found = [by[way, budget, name] for name in OBJECTIVES]
        cells = [f"{row['spearman']:.2f} [{row['interval'][0]:.2f}, {row['interval'][1]:.2f}]" for row in found]
        cells += [f"{100 * row['regret']:.1f}" for row in found] + [f"{row['survives']:.2f}" for row in found]
        lines.append(f"| {way} | {budget} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_more(facts)]) + "\n"


def _more(facts: Mapping[str, Any]) -> list[str]:
    words = OBJECTIVES
    lines = ["| difference of Spearman | epochs | " + " | ".join(words.values()) + " |", "|---" * 5 + "|"]
    places = dict.fromkeys((row["first"], row["second"], row["budget"]) for row in facts["differences"])
    for first, second, budget in places:
        found = [r for r in facts["differences"] if (r["first"], r["second"], r["budget"]) == (first, second, budget)]
        cells = [f"{r['difference']:+.2f} [{r['interval'][0]:+.2f}, {r['interval'][1]:+.2f}]" for r in found]
        lines.append(f"| {first} less {second} | {budget} | " + " | ".join(cells) + " |")
    lines += ["", "| successive halving | epochs | " + " | ".join(f"regret, {word}" for word in words.values()) + " |",
              "|---" * 5 + "|"]  # fmt: skip
    for way in ("full", *WAYS):
        found = [row for row in facts["halvings"] if row["way"] == way]
        regrets = " | ".join(f"{100 * row['regret']:.1f}" for row in found)
        lines.append(f"| {way} | {found[0]['epochs']} | {regrets} |")
    lines += ["", "| whole training, test | step, mean (best) | wsd, mean (best) | wsd less step | Spearman |",
              "|---" * 5 + "|"]  # fmt: skip
    for row in facts["ends"]:
        low, high = row["interval"]
        gain = f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        pair = [f"{100 * row[kind]:.1f} ({100 * row[f'best_{kind}']:.1f})" for kind in ("step", "wsd")]
        lines.append(f"| {words[row['objective']]} | {pair[0]} | {pair[1]} | {gain} | {row['spearman']:.2f} |")
    return lines


def picture(facts: Mapping[str, Any], path: Path) -> None:
    """Spearman over budget, a panel for each objective."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for panel, (name, word) in zip(panels, OBJECTIVES.items(), strict=True):
        mine = [row for row in facts["rows"] if row["objective"] == name]
        for place, way in enumerate(WAYS):
            _line(panel, [row for row in mine if row["way"] == way], way, 1.04 ** (place - 1.5))
        ceiling = next(row["spearman"] for row in mine if row["way"] == "full")
        panel.axhline(ceiling, color="grey", linestyle="--", label="whole training, another seed")
        panel.set(title=word, xscale="log", xlabel="epochs of the rung", xticks=facts["budgets"])
        panel.set_xticklabels([str(budget) for budget in facts["budgets"]])
        panel.minorticks_off()
    panels[0].set_ylabel("Spearman with the final ranking")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _line(panel: Any, mine: list[dict[str, Any]], way: str, shift: float) -> None:
    """One way's points with their intervals, moved sideways so that they can be told apart."""
    at = [row["budget"] * shift for row in mine]
    middle = np.array([row["spearman"] for row in mine])
    ends = np.array([row["interval"] for row in mine]).T
    panel.errorbar(at, middle, abs(ends - middle), marker="o", capsize=2, label=way)
