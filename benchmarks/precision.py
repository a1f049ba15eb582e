"""What bfloat16 costs in the mean, the worst class and the worst fifth: ABSLD on digits, fp32 and bf16, PGD-20 in fp32.

python -m benchmarks.precision [--seeds 8] [--out FOLDER]     (about half a minute of one core a seed)

Both trainings of a seed see the same batches, noise and teacher, so their difference is paired.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from absld_search.core.config import TrialConfig
from absld_search.core.trial import run_trial
from benchmarks import timing
from benchmarks.options import options

METRICS = ("clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy", "robust_cvar")


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


def main(words: Sequence[str] | None = None) -> int:
    more = (("--seeds", int, 8, "two with --short"), ("--workload", str, "digits", "whose trainings"))
    told = options(__doc__, *more, words=words)
    seeds = range(2 if told.short else told.seeds)
    runs = {p: [trained(p, seed, told.workload) for seed in seeds] for p in ("fp32", "bf16")}
    found = [summary(name, *([run[name] for run in runs[p]] for p in ("fp32", "bf16"))) for name in METRICS]
    for each in found:
        ends = f"difference {each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]"
        print(f"{each['metric']:<28} fp32 {each['fp32']:.3f}  bf16 {each['bf16']:.3f}  {ends}")
    print(timing.write(told.out, "precision", {"seeds": len(seeds), "summary": found, "runs": runs}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
