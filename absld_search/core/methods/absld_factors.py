"""What can be varied about ABSLD, and what its release does otherwise. The method itself: absld.py."""

from __future__ import annotations

from dataclasses import dataclass

from absld_search.core.methods.base import knob
from absld_search.core.methods.composition import ClassRules
from absld_search.core.methods.label_sources import SOURCES
from absld_search.core.methods.temperatures import DIRECTIONS, NORMALISERS
from absld_search.words import UsageError

COUPLINGS = ("dual", "shared", "product", "adv_only", "clean_only", "mixed")
SIGNALS = ("ce", "kl", "robust_error", "monitor_ce", "kappa")
TARGETS = ("tempered", "teacher", "ce", "adaad", "trades")
AGGREGATIONS = ("mean", "sum", "ema")
UNITS = ("epoch", "iteration", "once")


@dataclass
class ABSLDFactors(ClassRules):
    """The knobs. Defaults are the paper's, as far as it could be read, and the release's where it is silent."""

    coupling: str = knob("dual", options=COUPLINGS, doc="how the two sets of temperatures depend on each other")
    coupling_strength: float = knob(0.0, low=0, high=1, doc="of `mixed`: 0 is dual")
    temperature_lr: float = knob(0.1, low=0, doc="most that a temperature moves in an epoch")
    temperature_min: float = knob(0.5, above=0)
    temperature_max: float = knob(5.0, above=0)
    initial_temperature_adv: float = knob(1.0, above=0)
    initial_temperature_clean: float = knob(1.0, above=0)
    adv_weight: float = knob(5 / 6, low=0, high=1, doc="share of the adversarial term; the rest is clean")

    update_normaliser: str = knob("max_gap", options=NORMALISERS, doc="what the gaps of the risks are divided by")
    risk_signal: str = knob("ce", options=SIGNALS, doc="what says that a class is hard; kappa: survived steps")
    risk_aggregation: str = knob("mean", options=AGGREGATIONS, doc="over the class's images; sum: the release")
    risk_ema_decay: float = knob(0.9, low=0, high=1, doc="of risk_aggregation=ema, per update")
    update_every: int = knob(1, low=1, doc="in units of update_unit")
    update_unit: str = knob(
        "epoch",
        options=UNITS,
        doc="iteration: batches, counted on through the epochs; once: after epoch `update_every` and never again",
    )
    direction: str = knob("sharpen_hard", options=DIRECTIONS, doc="permuted: each class moved by another's risk")
    permutation_seed: int = knob(0, low=0, doc="of direction=permuted: which other class")
    manual_temperatures: str = knob("", doc="of direction=manual: one number a class, both sets, never moved")
    attack_target: str = knob("tempered", options=TARGETS, doc="what the attack drives the student away from")
    norm_matched: bool = knob(False, doc="control: plain labels, each pull scaled to the tempered label's length")
    label_source: str = knob("teacher", options=SOURCES, doc="whose labels are tempered; the others need no teacher")
    label_smoothing: float = knob(0.1, above=0, high=0.99, doc="of label_source=label_smoothing, at temperature 1")
    self_decay: float = knob(0.99, low=0, high=1, doc="of label_source=ema, per step")
    hard_share: float = knob(0.5, low=0, high=1, doc="of label_source=ema: share of the true label in its labels")
    released: bool = knob(False, doc="the release at once: coupling=product, risk_aggregation=sum; wins over both")

    def __post_init__(self) -> None:
        if self.released:
            self.coupling, self.risk_aggregation, self.kl_reduction = "product", "sum", "mean"
        for name in ("initial_temperature_adv", "initial_temperature_clean"):
            if not self.temperature_min <= getattr(self, name) <= self.temperature_max:
                bounds = f"[{self.temperature_min:g}, {self.temperature_max:g}]"
                raise UsageError(f"{name} is {getattr(self, name):g}, outside its bounds {bounds}.")
        if self.attack_target == "adaad" and self.label_source != "teacher":
            raise UsageError("attack_target=adaad attacks the teacher too, so it needs label_source=teacher.")
        if self.update_unit == "iteration" and self.risk_signal == "monitor_ce":
            raise UsageError("risk_signal=monitor_ce is measured once an epoch, so update_unit can't be iteration.")
        if (self.direction == "manual") != bool(self.manual_temperatures):
            raise UsageError("manual_temperatures and direction=manual need each other.")

    def due(self, epoch: int) -> bool:
        """Whether temperatures move after this epoch."""
        if self.update_unit == "once":
            return epoch == self.update_every
        return self.update_unit == "epoch" and epoch % self.update_every == 0

    def roles(self) -> tuple[str, ...]:
        return ("robust",) if self.label_source == "teacher" else ()

    def measured_on(self) -> str:
        return "monitor" if self.risk_signal == "monitor_ce" else ""

    def counts_survival(self) -> bool:
        return super().counts_survival() or self.risk_signal == "kappa"

    def repeatable(self) -> bool:
        plain = (self.class_weights, self.class_margin, self.label_source) == ("none", "none", "teacher")
        return plain and self.update_unit != "iteration"
