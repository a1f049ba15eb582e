"""Every method by name: one paper, one page. Here alone two pages may meet: Fair-ARD's rule over four bases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from absld_search.core.methods.absld import ABSLD
from absld_search.core.methods.adaad import AdaAD, AdaIAD
from absld_search.core.methods.ard import ARD
from absld_search.core.methods.base import Method, Value
from absld_search.core.methods.bat import BAT
from absld_search.core.methods.cfa import CFA
from absld_search.core.methods.cfol import CFOL
from absld_search.core.methods.csr import CSR
from absld_search.core.methods.dafa import DAFA
from absld_search.core.methods.faal import FAAL
from absld_search.core.methods.fair_ard import Fair
from absld_search.core.methods.fairat import FairAT
from absld_search.core.methods.frl import FRL
from absld_search.core.methods.ham import HAM
from absld_search.core.methods.iad import IAD
from absld_search.core.methods.mtard import MTARD
from absld_search.core.methods.rslad import RSLAD
from absld_search.core.methods.sat import SAT
from absld_search.core.methods.trades import TRADES
from absld_search.core.methods.wat import WAT

SLIPS: Mapping[str, Value] = {"nesterov": True, "drop_once": True}


@dataclass
class FairARD(Fair, ARD):
    """Fair-ARD's class weights over ARD."""

    in_release: ClassVar[Mapping[str, Value]] = {"attack_mode": "train"}
    trained_in_release: ClassVar[Mapping[str, Value]] = SLIPS


@dataclass
class FairIAD(Fair, IAD):
    """Fair-ARD's class weights over IAD-I."""

    in_release: ClassVar[Mapping[str, Value]] = {"attack_mode": "train"}
    trained_in_release: ClassVar[Mapping[str, Value]] = SLIPS


@dataclass
class FairRSLAD(Fair, RSLAD):
    """Fair-ARD's class weights over RSLAD."""


@dataclass
class FairMTARD(Fair, MTARD):
    """Fair-ARD's class weights over MTARD."""

    in_release: ClassVar[Mapping[str, Value]] = {"clean_targets": "robust_adv"}


METHODS: dict[str, type[Method]] = {
    "absld": ABSLD,
    "adaad": AdaAD,
    "adaiad": AdaIAD,
    "ard": ARD,
    "bat": BAT,
    "cfa": CFA,
    "cfol": CFOL,
    "csr": CSR,
    "dafa": DAFA,
    "faal": FAAL,
    "fair-ard": FairARD,
    "fair-iad": FairIAD,
    "fair-mtard": FairMTARD,
    "fair-rslad": FairRSLAD,
    "fairat": FairAT,
    "frl": FRL,
    "ham": HAM,
    "iad": IAD,
    "mtard": MTARD,
    "rslad": RSLAD,
    "sat": SAT,
    "trades": TRADES,
    "wat": WAT,
}
