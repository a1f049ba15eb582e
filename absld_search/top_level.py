"""The packages beside this one, `analysis` and `search_spaces`, are ours, and not a person's own folders of that name.

`python -m` looks into the current folder first, so a folder `analysis` with an `__init__.py` there hides ours.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import absld_search
from absld_search.words import UsageError

BESIDE = ("analysis", "search_spaces")


def require_ours() -> None:
    """Raises: UsageError where another package of that name would be imported, naming it."""
    home = Path(absld_search.__file__).resolve().parents[1]
    for name in BESIDE:
        found = find_spec(name)
        if found is None or found.origin is None:
            raise UsageError(f"the package {name!r} is missing beside absld_search: install it again.")
        if Path(found.origin).resolve().parent != home / name:
            raise UsageError(
                f"{found.origin} hides the package {name!r} of absld_search: run the command in another folder, or "
                "rename yours."
            )
