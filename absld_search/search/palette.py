"""The colours of arms, the same in figures and in MLflow: made for the colour-blind."""

from collections.abc import Sequence

# Okabe and Ito, "Color Universal Design", 2008; without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NO_ARM, OFF_FRONT = "#d62728", "#b0b8c1"
PALE = 0.62  # how far towards white the colour of a trial off the front is moved


def of_arm(arms: Sequence[str], arm: str, strong: bool = True) -> str:
    """An arm's colour; pale for what is on no front. Beyond seven arms colours return; unknown arms share one."""
    if arm not in arms:
        return NO_ARM if strong else OFF_FRONT
    colour = COLOURS[list(arms).index(arm) % len(COLOURS)]
    return colour if strong else _pale(colour)


def _pale(colour: str) -> str:
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * PALE):02x}" for part in parts)
