"""What every benchmark script is told: how long it may take, and where its JSON goes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("ABSLD_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
CIFAR10 = DATA / "cifar10"


def parser(description: str | None, *more: tuple[str, type, object, str]) -> argparse.ArgumentParser:
    """One that knows --short, --out and `more`: (flag, type, default, help). Sets torch to one thread."""
    torch.set_num_threads(1)
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--short", action="store_true", help="as few repetitions as still show the order of magnitude")
    found.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    for flag, kind, default, text in more:
        found.add_argument(flag, type=kind, default=default, help=f"{text} (default {default})")
    return found


def options(
    description: str | None, *more: tuple[str, type, object, str], words: Sequence[str] | None = None
) -> argparse.Namespace:
    """What the words of the command, or `words`, say."""
    return parser(description, *more).parse_args(words)
