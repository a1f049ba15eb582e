"""Class weights and class margins of other papers, over any method that learns from soft labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absld_search.core.methods.base import Epoch, Radius, knob
from absld_search.core.methods.distillation import Distillation
from absld_search.core.methods.weights import Confusion, cfa_scale, dafa_weights, fair_ard_weights

WEIGHTS = ("none", "fair_ard", "dafa")
MARGINS = ("none", "cfa", "dafa")


@dataclass
class ClassRules(Distillation):
    """Sample-based fairness beside label-based: which samples count more, and how far they are attacked.

    `fair_ard` weighs all losses of a class, as Fair-ARD does, rescaled to mean one; `dafa` does so with DAFA's
    weights, once, after the warm-up; the margin of `dafa` scales radius and step, that of `cfa` the radius.
    """

    class_weights: str = knob("none", options=WEIGHTS, doc="whose weights the losses of a class get")
    class_margin: str = knob("none", options=MARGINS, doc="whose rule scales the attack radius of a class")
    reweight_exponent: float = knob(2.0, low=0, doc="of fair_ard")
    margin_base: float = knob(0.5, low=0, doc="of cfa: lambda 1")
    transfer: float = knob(1.0, low=0, doc="of dafa: lambda")
    rules_warm_up: float = knob(70 / 110, above=0, high=1, doc="of dafa: share of the epochs before its weights")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.weights = torch.ones(num_classes, device=device)
        self.margins = torch.ones(num_classes, device=device)
        self.confusion: Confusion | None = None

    def start_epoch(self, epoch: Epoch, class_means: Mapping[str, Tensor] | None = None) -> None:
        asked = "dafa" in (self.class_weights, self.class_margin)
        due = epoch.number == max(1, round(self.rules_warm_up * epoch.total))
        self.confusion = Confusion(self.num_classes, self.device) if asked and due else None

    def notice(self, adv_logits: Tensor, y: Tensor) -> None:
        if self.confusion is not None:
            self.confusion.add(adv_logits, y)

    def counts_survival(self) -> bool:
        return self.class_weights == "fair_ard"

    def mean(self, values: Tensor, y: Tensor) -> Tensor:
        return values.mean() if self.class_weights == "none" else (self.weights[y] * values).mean()

    def radius(self, y: Tensor) -> Radius:
        if self.class_margin == "none":
            return self.eps, self.step_size
        scale = self.margins[y]
        return scale * self.eps, scale * self.step_size if self.class_margin == "dafa" else self.step_size

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        if self.class_weights == "fair_ard":
            found = fair_ard_weights(class_means["survived"], self.reweight_exponent, 5 / 6, 5 / 2, renormalise=True)
            self.weights = found.to(self.weights)
        if self.class_margin == "cfa":
            self.margins = cfa_scale(class_means["adv_correct"], self.margin_base).to(self.margins)
        if self.confusion is not None:
            found = dafa_weights(self.confusion.mean(), self.transfer).to(self.weights)
            self.weights = found if self.class_weights == "dafa" else self.weights
            self.margins = found if self.class_margin == "dafa" else self.margins
        weights = {} if self.class_weights == "none" else {"class_weight": self.weights}
        return weights if self.class_margin == "none" else {**weights, "margin_scale": self.margins}

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "margins": self.margins}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights, self.margins = state["weights"].to(self.device), state["margins"].to(self.device)
