"""Rules that move one temperature per class by how hard the classes are: plain functions of (C,)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from absld_search.words import UsageError, number

NORMALISERS = ("max_gap", "std", "sign", "log_proportional")
DIRECTIONS = ("sharpen_hard", "smooth_hard", "permuted", "manual")
ROUNDING = 1e-6  # gaps below this share of the mean risk are rounding, not unfairness
HUGE = 1e150  # risks beyond this are rescaled, so that their sum is finite


def moved(
    tau: Tensor, risk: Tensor, rate: float, bounds: tuple[float, float], normaliser: str = "max_gap"
) -> Tensor:  # fmt: skip
    """The temperatures (C,) after one update by the class risks (C,), nan where a class was not seen.

    gap = risk - mean(risk); tau - rate * gap / scale, clipped to the bounds, where scale is
      max_gap           the largest |gap|: the most deviating class moves by exactly the rate
      std               the standard deviation of the gaps
      sign              |gap| itself: every class moves by the rate
      log_proportional  mean |risk|, and log(tau) is what moves
    A class not seen keeps its temperature; so do all if their gaps are rounding.
    """
    seen = risk.isfinite()
    if not seen.any():
        return tau
    size = risk[seen].abs().max()
    risk = risk / size if size > HUGE else risk
    gap = torch.where(seen, risk - risk[seen].mean(), torch.zeros_like(risk))
    largest = gap.abs().max()
    if largest <= ROUNDING * risk[seen].mean().abs():
        return tau
    wanted = _stepped(tau.double(), gap, largest, risk, seen, rate, normaliser)
    return torch.where(seen, wanted.clamp(*bounds).to(tau.dtype), tau)


def _stepped(
    tau: Tensor, gap: Tensor, largest: Tensor, risk: Tensor, seen: Tensor, rate: float, normaliser: str
) -> Tensor:  # fmt: skip
    if normaliser == "max_gap":
        return tau - rate * gap / largest
    if normaliser == "sign":
        return tau - rate * gap.sign()
    if normaliser == "std":
        share = gap / largest  # first, so that no square overflows
        return tau - rate * share / share[seen].square().mean().sqrt()
    return (tau.log() - rate * gap / risk[seen].abs().mean()).clamp(-50, 50).exp()


def risks(class_means: Mapping[str, Tensor], signal: str, aggregation: str) -> tuple[Tensor, Tensor]:
    """(adversarial, clean) risk of each class (C,), the higher the harder; nan where a class was not seen."""
    if signal == "kl":
        found = class_means["adv_kl"], class_means["clean_kl"]
    elif signal == "robust_error":
        found = 1 - class_means["adv_correct"], 1 - class_means["clean_correct"]
    elif signal == "kappa":  # a count of attack steps, which has no clean side
        found = -class_means["survived"], -class_means["survived"]
    else:
        found = class_means["adv_risk"], class_means["clean_risk"]
    if aggregation == "sum":
        return found[0] * class_means["count"], found[1] * class_means["count"]
    return found


def smoothed_risks(before: Tensor, now: Tensor, decay: float) -> Tensor:
    """The running average of risks (2, C): the first value where there was none, the last where there is none."""
    known = torch.where(before.isfinite(), decay * before + (1 - decay) * now, now)
    return torch.where(now.isfinite(), known, before)


def permutation(num_classes: int, seed: int) -> Tensor:
    """A fixed random order of the classes (C,) in which none keeps its place, if there are two or more."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(num_classes)
    while True:
        order = torch.randperm(num_classes, generator=generator)
        if num_classes < 2 or not (order == identity).any():
            return order


def by_hand(text: str, num_classes: int) -> Tensor:
    """Temperatures (C,) from words such as "0.5 0.5 1 2". Raises: UsageError."""
    values = [number("manual_temperatures", word) for word in text.replace(",", " ").split()]
    if len(values) != num_classes or min(values) <= 0:
        raise UsageError(f"manual_temperatures needs {num_classes} numbers above 0, one a class, not {text!r}.")
    return torch.tensor(values)
