"""Pages of docs/ with tables from kept JSON. A table stands between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.writing import filled
from benchmarks import timing

DOCS = Path(__file__).parents[1] / "docs"
Row = Mapping[str, Any]


def read(folder: Path, name: str) -> dict[str, Any]:
    """What was found before; empty where nothing was."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


@dataclass(frozen=True)
class Page:
    """A page, the folder of its kept results, and how each result is shown."""

    path: Path
    results: Path
    tables: Mapping[str, Callable[[Row], str]]

    def show(self, name: str, found: Row) -> None:
        """One result in its place."""
        text = self.path.read_text(encoding="utf-8")
        self.path.write_text(filled(text, name, self.tables[name](found)), encoding="utf-8")

    def write(self, out: Path, name: str, found: Row) -> None:
        """Keep it, and show it where `out` is the page's own folder."""
        timing.write(out, name, found)
        if out.resolve() == self.results.resolve() and self.path.exists():
            self.show(name, found)

    def again(self) -> None:
        """Every table, from what is kept."""
        for name in self.tables:
            if found := read(self.results, name):
                self.show(name, found)
