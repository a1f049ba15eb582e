"""Every method by name: one paper, one page."""

from absld_search.core.methods.absld import ABSLD
from absld_search.core.methods.base import Method
from absld_search.core.methods.rslad import RSLAD
from absld_search.core.methods.sat import SAT
from absld_search.core.methods.trades import TRADES

METHODS: dict[str, type[Method]] = {"absld": ABSLD, "rslad": RSLAD, "sat": SAT, "trades": TRADES}
