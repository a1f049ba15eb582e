"""What a method's numbers come from, apart from its settings: its code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType

from absld_search.core.methods import METHODS

PACKAGE = "absld_search.core.methods"


def of(method: str) -> str:
    """The start of a sha256 over the code of a method's class and of whatever it takes from the methods' modules.

    Comments and docstrings do not count, nor does what all methods share outside the package.
    """
    made, seen = METHODS[method], set[str]()
    for one in inspect.getmro(made):
        _reach(one.__module__, seen)
    told = [inspect.getsource(made), *(inspect.getsource(sys.modules[name]) for name in sorted(seen))]
    return hashlib.sha256("\n".join(map(_bare, told)).encode()).hexdigest()[:16]


def _reach(name: str, seen: set[str]) -> None:
    """Add to `seen` the package's module `name`, and those whose names it knows."""
    if name in seen or not name.startswith(f"{PACKAGE}.") or name not in sys.modules:
        return
    seen.add(name)
    for other in _named(sys.modules[name]):
        _reach(other, seen)


def _named(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name


def _bare(source: str) -> str:
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)  # which, unlike ast.dump, is the same in every Python that we run on
