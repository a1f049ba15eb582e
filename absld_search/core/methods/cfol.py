"""CFOL, Class-Focused Online Learning: Pethick et al., TMLR 2023, arXiv:2302.08872."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from absld_search.core.data import Batch
from absld_search.core.methods.adversarial import standard_terms
from absld_search.core.methods.base import Epoch, Method, Step, Teacher, knob


@dataclass
class CFOL(Method):
    """Show the classes that fail more often: a bandit chooses the class of every training image.

    Formula: classes are drawn by p = uniform_share / C + (1 - uniform_share) * softmax(w), images evenly within
    their class, with replacement; the loss is CE(S(x'), y). After every batch
    w_c += sampling_lr * (errors on attacked images of class c) / p_c.

    The rate is for a long training: ten million images for the paper's. Differs from the released code: as
    many attack steps as all methods of a study, where it takes 7; no fifth of the data is held out.
    """

    cost: ClassVar[str] = "attack 10 (F+B); update F+B"

    attack_start: str = knob("uniform", options=("gaussian", "uniform"), doc="0.001 N(0, 1), or anywhere in the ball")
    sampling_lr: float = knob(5e-6, low=0, doc="eta in the paper; 0 draws classes evenly")
    uniform_share: float = knob(0.5, above=0, high=1, doc="gamma in the paper")

    def setup(self, num_classes: int, device: torch.device | str) -> None:
        super().setup(num_classes, device)
        self.scores = torch.zeros(num_classes, dtype=torch.float64, device=device)

    def class_sampling(self) -> Tensor:
        return self.uniform_share / self.num_classes + (1 - self.uniform_share) * torch.softmax(self.scores, dim=0)

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = standard_terms(self, student, batch)
        probability = self.class_sampling()
        errors = torch.zeros_like(probability).index_add_(0, batch.y, 1 - terms.signals["adv_correct"].double())
        self.scores = self.scores + self.sampling_lr * errors / probability
        return Step(self.mean(terms.robust, batch.y), terms.signals)

    def end_epoch(self, class_means: Mapping[str, Tensor], epoch: Epoch) -> dict[str, Tensor]:
        return {"class_probability": self.class_sampling()}

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scores = state["scores"].to(self.device)
