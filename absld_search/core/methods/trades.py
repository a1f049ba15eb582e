"""TRADES: Zhang et al., ICML 2019, arXiv:1901.08573."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from absld_search.core.data import Batch
from absld_search.core.methods.adversarial import trades_terms
from absld_search.core.methods.base import Method, Step, Teacher, knob


@dataclass
class TRADES(Method):
    """Be right on clean images, and say the same nearby.

    Formula: CE(S(x), y) + kl_weight * KL(S(x) || S(x')), where x' ascends the same divergence from
    x + 0.001 N(0, 1). The gradient flows into both sides of the divergence, as in the release: a public
    rewrite that detached the clean side lost about four points of robust accuracy.
    """

    cost: ClassVar[str] = "attack 10 (F+B) + F; update 2F+B"

    kl_weight: float = knob(6.0, low=0, doc="beta in the paper: weight of the robust term")

    def step(self, student: nn.Module, teachers: Mapping[str, Teacher], batch: Batch) -> Step:
        terms = trades_terms(self, student, batch)
        natural, robust = self.mean(terms.natural, batch.y), self.mean(terms.robust, batch.y)
        return Step(natural + self.kl_weight * robust, terms.signals)
