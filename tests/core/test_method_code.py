"""Which changes of a method's code count: those that can change its numbers, in whatever module of the methods."""

from __future__ import annotations

import inspect

import pytest

from absld_search.core import method_code
from absld_search.core.methods import METHODS, temperatures


def test_words_about_the_code_do_not_count() -> None:
    one = method_code._bare('"""Says this."""\ndef f(x):\n    """That."""\n    return x + 1  # for a reason\n')
    assert one == method_code._bare("def f(x):\n    return x + 1")
    assert one != method_code._bare("def f(x):\n    return x + 2")


def test_every_method_has_a_code_of_its_own() -> None:
    assert len({method_code.of(name) for name in METHODS}) == len(METHODS)


def test_what_a_method_takes_from_another_module_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: method_code.of(name) for name in ("absld", "sat")}
    read = inspect.getsource
    source = read(temperatures)
    assert source.count("clamp") > 0

    def changed(what: object) -> str:
        return source.replace("clamp", "clip") if what is temperatures else read(what)  # type: ignore[arg-type]

    monkeypatch.setattr(method_code.inspect, "getsource", changed)
    assert method_code.of("absld") != before["absld"] and method_code.of("sat") == before["sat"]


def test_it_is_the_same_in_every_python() -> None:
    """Printed source is, a dump of the tree is not: the tree has other fields in other versions."""
    assert method_code._bare("def f(x):\n    return [x+1, *x]  # so\n") == "def f(x):\n    return [x + 1, *x]"
