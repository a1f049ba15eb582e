"""What torchattacks makes of the same network and images; run by test_second_opinion.py in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import safetensors.torch
import torch
import torchattacks  # type: ignore[import-not-found]  # installed apart, by the test
from torch import Tensor, nn

from absld_search.core import attacks, data, models
from absld_search.workloads import DIGITS

EPS, STEP, STEPS = 0.15, 0.02, 20


def main() -> None:
    model = models.build("cnn-8", 10, 1, 0, size=8)
    model.load_state_dict(safetensors.torch.load_file(Path(sys.argv[1])))
    model.eval()
    split = data.load_test("digits", DIGITS.split, "cpu").first(200)
    print(json.dumps(compared(model, split.images, split.labels, attacks.ImageDraws(split.ids, 0))))


def compared(model: nn.Module, x: Tensor, y: Tensor, draws: attacks.ImageDraws) -> dict[str, float]:
    """Largest difference of points where both are deterministic, and accuracies where each draws its own start."""
    walk = attacks.Pgd(num_steps=STEPS, step_size=STEP, start="none", drop=False)
    theirs = {
        "fgsm": torchattacks.FGSM(model, eps=EPS),
        "pgd": torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=False),
    }
    ours = {"fgsm": attacks.Fgsm(), "pgd": walk}
    found = {name: float((theirs[name](x, y) - ours[name](model, x, y, EPS, draws)).abs().max()) for name in ours}
    apgd = torchattacks.APGD(model, eps=EPS, steps=100, n_restarts=1, seed=0)
    found["apgd_theirs"] = accuracy(model, apgd(x, y), y)
    found["apgd_ours"] = accuracy(model, attacks.Apgd()(model, x, y, EPS, draws), y)
    return found


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


if __name__ == "__main__":
    main()
