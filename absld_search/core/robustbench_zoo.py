"""RobustBench's networks by id, from the optional extra `robustbench`: its code, our reading of its files."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from absld_search.words import UsageError, require_known

EXTRA = "pip install 'absld_search[robustbench]'"
DATASETS = ("cifar10", "cifar100")  # what RobustBench and we have in common


def build(id_: str, dataset: str) -> nn.Module:
    """The network of an L-infinity model, without weights. Raises: UsageError."""
    known = _records(dataset)
    require_known("RobustBench model", id_, known)
    if isinstance(known[id_].get("gdrive_id"), list):
        raise UsageError(f"teacher robustbench:{id_} is an ensemble of several files, which is not supported.")
    return known[id_]["model"]()


def place(folder: str, dataset: str, id_: str) -> tuple[Path, tuple[str, ...]]:
    """Where RobustBench keeps a model's file below --teacher-dir, and its name without suffix."""
    return Path(folder) / dataset / "Linf", (id_,)


def _records(dataset: str) -> dict[str, Any]:
    if dataset not in DATASETS:
        raise UsageError(f"teacher: RobustBench has no models for {dataset}.")
    zoo = _package()
    enums = importlib.import_module("robustbench.model_zoo.enums")
    return zoo.model_dicts[enums.BenchmarkDataset(dataset)][enums.ThreatModel.Linf]


def _package() -> Any:
    """`robustbench.model_zoo`. Release 1.1.1 imports `autoattack` but depends on `pyautoattack`, the same code
    under another name; the alias lasts no longer than the import."""
    try:
        aliases = {name: importlib.import_module(f"py{name}") for name in ("autoattack", "autoattack.state")}
        missing = {name: module for name, module in aliases.items() if name not in sys.modules}
        sys.modules.update(missing)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pkg_resources, and an unused torch.jit interface
                return importlib.import_module("robustbench.model_zoo")
        finally:
            for name in missing:
                sys.modules.pop(name, None)
    except ImportError as error:
        raise UsageError(f"teacher: RobustBench's models need {EXTRA} ({error}).") from None
