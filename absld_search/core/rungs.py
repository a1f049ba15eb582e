"""Budgets at which configurations are compared before they are given the whole one, and how to train to them."""

from __future__ import annotations


def rungs(epochs: int, eta: float = 3, grace: int = 1) -> tuple[int, ...]:
    """Budgets in epochs, rising, each about `eta` times the one before; the first at least `grace`, the last `epochs`.

    Raises: ValueError unless eta > 1 and 1 <= grace <= epochs.
    """
    if eta <= 1 or not 1 <= grace <= epochs:
        raise ValueError(f"rungs need eta > 1 and 1 <= grace <= epochs, not {eta=}, {grace=}, {epochs=}")
    found = [epochs]
    while (budget := round(epochs / eta ** len(found))) >= grace and budget < found[-1]:
        found.append(budget)
    return tuple(reversed(found))
