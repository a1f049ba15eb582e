"""What Ray Tune carries between the driver and a training: one text each way.

Tune keeps statistics of every number that it is shown, for each trial and until the end, which came to 0.46 MB of the
driver's memory a trial (docs/scaling.md). It leaves a text alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

WORD = "said"


def packed(**facts: Any) -> dict[str, str]:
    """Facts for Tune to carry; tuples arrive as lists."""
    return {WORD: json.dumps(facts)}


def unpacked(carried: Mapping[str, Any] | None) -> dict[str, Any]:
    """The facts again, without what Tune has put beside them; {} where nothing was said."""
    found: dict[str, Any] = json.loads((carried or {}).get(WORD, "{}"))
    return found


def carried(call: Callable[..., Mapping[str, Any]]) -> Callable[..., dict[str, str]]:
    """`call`, which takes and gives facts, as Tune calls it."""

    @functools.wraps(call)
    def on_the_wire(config: Mapping[str, Any], **more: Any) -> dict[str, str]:
        return packed(**call(unpacked(config), **more))

    return on_the_wire
