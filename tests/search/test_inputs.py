"""What a start writes down of what made a study: its samplers and its methods' code."""

from __future__ import annotations

from pathlib import Path

import pytest

from absld_search.core import method_code
from absld_search.search import tables
from absld_search.search.reuse import Reuse
from absld_search.search.study import held
from tests.search.requests import plan


def test_another_sampler_is_written_down(tmp_path: Path) -> None:
    for sampler in ("random", "tpe", "tpe"):
        with held(plan(tmp_path, sampler=sampler)) as started:
            started.inputs.made_by()
            assert tables._measured(started.plan, started.ledger)["samplers"][-1] == sampler
    assert started.ledger.known("samplers") == ["random", "tpe"]


def test_a_method_that_has_changed_is_said_and_never_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(plan(tmp_path)) as started:
        started.inputs.made_by()
        started.inputs.made_by()
        reuse, first = Reuse(started.plan, started.ledger, print), started.ledger.facts("code:")
        assert reuse._same_code(first) and reuse._same_code({}) and "has changed" not in capsys.readouterr().out
        monkeypatch.setattr(method_code, "of", lambda method: "other")
        started.inputs.made_by()
        said = capsys.readouterr().out
        assert "the code of method 'absld' has changed since this study began" in said
        assert started.ledger.known("code:absld") == [*first["absld"], "other"]
        assert not reuse._same_code(first) and not reuse._same_code({"absld": [*first["absld"], "other"]})
