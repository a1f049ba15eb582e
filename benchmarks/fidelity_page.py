"""From the trainings of benchmarks/fidelity.py to tables, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.fidelity_report import OBJECTIVES, WAYS, Found, differences, ends, halvings, own_ends, rows, tilts


def write(found: Found, leaves: Mapping[int, int], out: Path, image: Path) -> str:
    """OUT/<workload>.json and .md, and a picture of all that OUT holds; the Markdown is the answer."""
    facts: dict[str, Any] = {
        "workload": found.workload,
        "configs": found.configs,
        "seeds": list(found.seeds),
        "truth": list(found.ended),
        "budgets": list(found.budgets),
        "rows": rows(found),
        "differences": differences(found),
        "own_ends": own_ends(found),
        "tilts": tilts(found),
        "halvings": halvings(found, leaves),
        "ends": ends(found),
    }
    timing.write(out, found.workload, facts)
    text = markdown(facts)
    (out / f"{found.workload}.md").write_text(text, encoding="utf-8")
    picture([json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))], image)
    return text


def markdown(facts: Mapping[str, Any]) -> str:
    """Tables: agreement, decisions, differences of ways, own ends, bias by knob, halving, the two schedules' ends."""
    head = (
        f"{facts['workload']}: {facts['configs']} configurations, seeds {facts['seeds']}, budgets {facts['budgets']}."
    )
    own = _agreement(facts, "own_ends", "its own schedule's end, same seed: rung")
    parts = [
        _agreement(facts, "rows", "rung"),
        _decisions(facts),
        _differences(facts),
        own,
        _tilts(facts),
        _halvings(facts),
        _ends(facts),
    ]
    return "\n\n".join([head, *parts]) + "\n"


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def _of(several: list[dict[str, Any]], **place: Any) -> list[dict[str, Any]]:
    return [row for row in several if all(row[name] == value for name, value in place.items())]


def _rungs(facts: Mapping[str, Any], table: str = "rows") -> list[tuple[list[str], list[dict[str, Any]]]]:
    """(first cells, a row for each objective) of every rung."""
    places = dict.fromkeys((row["way"], row["budget"]) for row in facts[table])
    return [([way, str(budget)], _of(facts[table], way=way, budget=budget)) for way, budget in places]


def _between(value: float, ends: list[float], form: str, unit: float = 1) -> str:
    return f"{unit * value:{form}} [{unit * ends[0]:{form}}, {unit * ends[1]:{form}}]"


def _agreement(facts: Mapping[str, Any], table: str, what: str) -> str:
    head = [what, "epochs", *(f"Spearman, {word}" for word in OBJECTIVES.values())]
    lines = [[*first, *(_between(row["spearman"], row["interval"], ".2f") for row in found)]
             for first, found in _rungs(facts, table)]  # fmt: skip
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


def _tilts(facts: Mapping[str, Any]) -> str:
    lines = []
    for knob, way, budget in dict.fromkeys((row["knob"], row["way"], row["budget"]) for row in facts["tilts"]):
        found = _of(facts["tilts"], knob=knob, way=way, budget=budget)
        cells = [_between(row["tilt"], row["interval"], "+.2f") for row in found]
        lines.append([f"{knob}, {way}", str(budget), *cells])
    return _table(["places gained by high values of", "epochs", *OBJECTIVES.values()], lines)


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
