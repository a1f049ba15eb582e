"""What torchattacks makes of the same network and images; run by test_second_opinion.py in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

import safetensors.torch
import torch
import torchattacks  # type: ignore[import-not-found]  # installed apart, by the test
from torch import Tensor, nn

from absld_search.core import attacks, data, models
from absld_search.workloads import DIGITS

EPS, STEP, STEPS = 0.15, 0.02, 20
IMAGES, SEEDS = 300, range(4)  # two starts of one attack differ on one image in twenty: one of each says little


def main() -> None:
    model = models.build("cnn-8", 10, 1, 0, size=8)
    model.load_state_dict(safetensors.torch.load_file(Path(sys.argv[1])))
    model.eval()
    split = data.load_test("digits", DIGITS.split, "cpu").first(IMAGES)
    draws = [attacks.ImageDraws(split.ids, seed) for seed in SEEDS]
    print(json.dumps(compared(model, split.images, split.labels, draws)))


def compared(model: nn.Module, x: Tensor, y: Tensor, draws: list[attacks.ImageDraws]) -> dict[str, float]:
    """Largest difference of points where both are deterministic, and mean accuracies where each draws its starts."""
    walk = attacks.Pgd(num_steps=STEPS, step_size=STEP, start="none", drop=False)
    theirs = {
        "fgsm": torchattacks.FGSM(model, eps=EPS),
        "pgd": torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=False),
    }
    ours = {"fgsm": attacks.Fgsm(), "pgd": walk}
    found = {name: float((theirs[name](x, y) - ours[name](model, x, y, EPS, draws[0])).abs().max()) for name in ours}
    apgd = [torchattacks.APGD(model, eps=EPS, steps=100, n_restarts=1, seed=seed) for seed in SEEDS]
    found["apgd_theirs"] = mean([accuracy(model, one(x, y), y) for one in apgd])
    found["apgd_ours"] = mean([accuracy(model, attacks.Apgd()(model, x, y, EPS, one), y) for one in draws])
    return found


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


if __name__ == "__main__":
    main()
