"""From the tables of a study to its answer: recomputed numbers, figures, report; and the face for notebooks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.study import StudyView, load_study

__all__ = ["StudyView", "load_study"]


def __getattr__(name: str) -> Any:
    """`load_study` and `StudyView`, loaded when they are asked for: the commands in here need no pandas."""
    if name not in __all__:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    from analysis import study

    return getattr(study, name)
