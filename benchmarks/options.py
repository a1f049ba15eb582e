"""What every benchmark script is told: how long it may take, and where its JSON goes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
CIFAR10 = Path(os.environ.get("ABSLD_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data") / "cifar10"


def options(description: str | None, *more: tuple[str, type, object, str]) -> argparse.Namespace:
    """--short, --out and `more`: (flag, type, default, help). Sets torch to one thread."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="as few repetitions as still show the order of magnitude")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    for flag, kind, default, text in more:
        parser.add_argument(flag, type=kind, default=default, help=f"{text} (default {default})")
    torch.set_num_threads(1)
    return parser.parse_args()
