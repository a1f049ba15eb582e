"""What bfloat16 costs in robust accuracy: ABSLD on digits, trained in fp32 and in bf16, the same seeds, PGD-20 in fp32.

python -m benchmarks.precision [--seeds 8] [--out FOLDER]     (about half a minute of one core a seed)

Both trainings of a seed see the same batches, noise and teacher, so their difference is paired.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from scipy import stats

from absld_search.core.config import TrialConfig
from absld_search.core.trial import run_trial
from benchmarks import timing

METRICS = ("clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy")


def trained(precision: str, seed: int, workload: str) -> dict[str, float]:
    """Metrics on val of one whole training."""
    config = TrialConfig.from_words({"method": "absld", "precision": precision}, workload, seed)
    with tempfile.TemporaryDirectory() as folder:
        return run_trial(config, Path(folder), lambda *_: None)


def summary(name: str, fp32: list[float], bf16: list[float]) -> dict[str, float | str]:
    """Means, and the paired difference with its 95 % interval by Student's t."""
    differences = [b - a for a, b in zip(fp32, bf16, strict=True)]
    mean, spread = statistics.mean(differences), statistics.stdev(differences)
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * spread / len(differences) ** 0.5
    found = {"fp32": statistics.mean(fp32), "bf16": statistics.mean(bf16), "difference": mean}
    return {"metric": name, **found, "low": mean - half, "high": mean + half}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--workload", default="digits")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    runs = {p: [trained(p, seed, asked.workload) for seed in range(asked.seeds)] for p in ("fp32", "bf16")}
    found = [summary(name, *([run[name] for run in runs[p]] for p in ("fp32", "bf16"))) for name in METRICS]
    for each in found:
        ends = f"difference {each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]"
        print(f"{each['metric']:<28} fp32 {each['fp32']:.3f}  bf16 {each['bf16']:.3f}  {ends}")
    print(timing.write(asked.out, "precision", {"seeds": asked.seeds, "summary": found, "runs": runs}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
