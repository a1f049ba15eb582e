"""Fair-ARD and its family: Yue et al., NeurIPS 2023, "Revisiting Adversarial Robustness Distillation from the
Perspective of Robust Fairness"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.methods.base import Epoch, Method, Step, Teacher, Value, knob
from absld_search.core.methods.weights import GUARD, fair_ard_weights, filled, total_of

# At run time no Method: a dataclass hands on inherited fields too, and Method's defaults would win over the base's own.
if TYPE_CHECKING:
    Base = Method
else:
    Base = object


@dataclass
class Fair(Base):
    """Classes whose attacks succeed in fewer steps weigh more, whatever the base method's loss is.

    Formula: mean of w[y] * loss_i. With k the mean number of attack iterates per class, out of num_steps, that
    the student still classified correctly: w = C * k^-b / sum(k^-b) in the next epoch, b = reweight_exponent,
    clipped to [weight_min, weight_max]; all ones in the first epoch. k equals the paper's least number of
    steps as long as no prediction flips back.

    Differs from the released code: the clipped weights are rescaled to mean one (`renormalise`), class totals
    are divided by the images of the class, not by N / C (`assume_balanced`), 1e-5 keeps a class that survives
    no step finite for every base. `released` sets both switches, and those of the base: attack in train mode,
    a rate that drops once, Nesterov, Fair-MTARD's clean branch. Not stated in the paper, as far as it could
    be read: whether clipped weights are rescaled.
    """

    in_release: ClassVar[Mapping[str, Value]] = {}  # knobs of the base as Fair-ARD's release sets them
    trained_in_release: ClassVar[Mapping[str, Value]] = {"nesterov": True}

    reweight_exponent: float = knob(2.0, low=0, doc="beta in the paper; 0 is the base method")
    weight_min: float = knob(5 / 6, above=0)
    weight_max: float = knob(5 / 2, above=0)
    renormalise: bool = knob(True, doc="rescale the clipped weights to mean one")
    assume_balanced: bool = knob(False, doc="class totals over N / C instead of over the class's images")
    released: bool = knob(False, doc="all quirks of the release at once; wins over the switches it names")

    def __post_init__(self) -> None:
        if self.released:
            self.renormalise, self.assume_balanced = False, True
            for name, value in self.in_release.items():
                setattr(self, name, value)

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.weights = torch.ones(num_classes, device=device)

    def training_defaults(self) -> dict[str, Value]:
        return {**super().training_defaults(), **(self.trained_in_release if self.released else {})}

    def counts_survival(self) -> bool:
        return True

    def mean(self, values: Tensor, y: Tensor) -> Tensor:
        return (self.weights[y] * values).mean()

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        found = super().step(student, teachers, batch)
        return Step(found.loss, {**found.per_sample, "survived": self.survived})

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        logged = super().end_epoch(class_means, epoch)
        survived = class_means["survived"]
        if self.assume_balanced:
            survived = total_of(class_means, "survived", float(class_means["count"].mean()))
        bounds = (self.weight_min, self.weight_max)
        found = fair_ard_weights(survived, self.reweight_exponent, *bounds, self.renormalise, GUARD)
        self.weights = found.to(self.weights)
        return {**logged, "class_weight": self.weights, "num_steps_survived": filled(survived)}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.weights = state["weights"].to(self.device)
