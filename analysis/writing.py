"""Files of a report: whole or not at all, and the same for the same study."""

from pathlib import Path

from matplotlib.figure import Figure

from absld_search.core.files import replacing
from analysis.drawing import styled


def save(figure: Figure, path: Path) -> None:
    """A figure in the format of the file's ending, without the date."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
    with styled(), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)


def write_text(path: Path, text: str) -> None:
    """A text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
