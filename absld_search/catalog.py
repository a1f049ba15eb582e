"""Finding search spaces: by the name of a file in `search_spaces/`, or by a path to one's own."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import search_spaces
from absld_search.space import SearchSpace
from absld_search.words import UsageError, checked_name, require_known


class Entry(NamedTuple):
    """A search space, its name, and the question it asks."""

    name: str
    question: str
    space: SearchSpace


def names() -> list[str]:
    """The search spaces that come with the project."""
    return sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__))


def entries() -> list[Entry]:
    """All of them, loaded."""
    return [load(name) for name in names()]


def load(name: str) -> Entry:
    """The search space called `name`, or in the file `name`. Raises: UsageError naming the nearest."""
    if name.endswith(".py"):
        return _entry(Path(name).stem, _module(Path(name)))
    require_known("search space", name, names())
    return _entry(name, importlib.import_module(f"search_spaces.{name}"))


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"search space: there is no file {path}. Known by name: {', '.join(names())}.")
    spec = importlib.util.spec_from_file_location(f"search_spaces_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except Exception as error:
        raise UsageError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return module


def _entry(name: str, module: ModuleType) -> Entry:
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise UsageError(f"search space {name}: the file defines no SPACE = SearchSpace(...).")
    question, *_ = (module.__doc__ or "").strip().splitlines() or [""]
    if not question:
        raise UsageError(f"search space: {module.__file__} asks nothing: begin it with its question as a docstring.")
    return Entry(checked_name("search space", name), question, space)
