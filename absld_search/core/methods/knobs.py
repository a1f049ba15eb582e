"""Hyperparameters: a value, what it may be, and the gate from a person's word to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from absld_search.words import UsageError, boolean, integer, number, require_known, unknown


def knob(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    options: tuple[str, ...] = (),
    doc: str = "",
) -> Any:
    """A hyperparameter: its paper's value and what it may be (low <= value <= high, value > above).

    Words have `options`; a word without any is free text.
    """
    rules = {"low": low, "high": high, "above": above, "options": options, "doc": doc}
    return field(default=default, metadata=rules)


def knobs(owner: type) -> dict[str, dataclasses.Field[Any]]:
    """The hyperparameters of a method by name."""
    return {f.name: f for f in dataclasses.fields(owner) if f.metadata}


def checked(owner: type, name: str, value: object) -> float | int | str | bool:
    """`value` in the type and range of that knob. Raises: UsageError naming knob, range and nearest word."""
    known = knobs(owner)
    if name not in known:
        raise unknown("parameter", name, known)
    knob_, kind = known[name], type(known[name].default)
    if kind is bool:
        return boolean(name, value)
    if kind is str:
        options = knob_.metadata["options"]
        return require_known(name, str(value), options) if options else str(value)
    return in_range(name, integer(name, value) if kind is int else number(name, value), knob_.metadata)


def in_range(name: str, value: float, rules: Mapping[str, Any]) -> float:
    """`value` if it obeys `rules` (low, high, above). Raises: UsageError."""
    low, high, above = rules.get("low"), rules.get("high"), rules.get("above")
    if low is not None and value < low:
        raise UsageError(f"{name} must be at least {low:g}, not {value:g}.")
    if above is not None and value <= above:
        raise UsageError(f"{name} must be greater than {above:g}, not {value:g}.")
    if high is not None and value > high:
        raise UsageError(f"{name} must be at most {high:g}, not {value:g}.")
    return value
