"""Which epoch's weights a training hands out: the last, or the best of those that were looked at."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

SCORES: dict[str, tuple[str, ...]] = {  # rule -> the metrics whose sum it maximises
    "avg": ("robust_accuracy",),
    "avg+worst": ("robust_accuracy", "worst_class_robust_accuracy"),
    "worst": ("worst_class_robust_accuracy",),
}
ORACLE = "oracle:"
RULES = ("last", *SCORES, *(ORACLE + rule for rule in SCORES))
"""`avg+worst` is CFA's (Wei et al., CVPR 2023, arXiv:2303.14460) and ABSLD's rule, `avg` early stopping on robust
accuracy. An `oracle:` rule looks at test, as many released codes do: only for reproducing such numbers."""


class Selection:
    """The best epoch so far by one of the `RULES`, with its weights; of equals the first."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.best, self.epoch = -float("inf"), 0
        self.weights: dict[str, Any] | None = None

    @property
    def split(self) -> str:
        """What it looks at: "val", "test" for an oracle, "" where it takes the last epoch."""
        return "" if self.rule == "last" else "test" if self.rule.startswith(ORACLE) else "val"

    def consider(self, epoch: int, metrics: Mapping[str, float], model: nn.Module) -> None:
        """Compare an epoch's `metrics`, by their names without a split's prefix, and keep `model` if it is better."""
        score = sum(metrics[name] for name in SCORES[self.rule.removeprefix(ORACLE)])
        if score > self.best:
            self.best, self.epoch = score, epoch
            self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def selected(self, model: nn.Module) -> nn.Module:
        """`model` with the best epoch's weights, or itself where no epoch was considered."""
        if self.weights is None:
            return model
        found = copy.deepcopy(model)
        found.load_state_dict(self.weights)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Empty where the last epoch counts: nothing to go on from."""
        return {"best": self.best, "epoch": self.epoch, "weights": self.weights} if self.split else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        if state:
            self.best, self.epoch, self.weights = state["best"], state["epoch"], state["weights"]
