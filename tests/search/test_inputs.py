"""What a start writes down of what made a study: its samplers and its methods' code."""

from __future__ import annotations

from pathlib import Path

import pytest

from absld_search.core import method_code
from absld_search.search import tables
from absld_search.search.reuse import Reuse
from absld_search.search.study import held
from tests.search.requests import plan
from tests.search.test_queue import drain


def test_another_sampler_is_written_down_when_it_is_asked(tmp_path: Path) -> None:
    for sampler, asks in (("random", True), ("tpe", True), ("tpe", True), ("qmc", False)):
        with held(plan(tmp_path, sampler=sampler)) as started:
            started.inputs.made_by(asks)
    assert tables._measured(started.plan, started.ledger)["samplers"] == ["random", "tpe"]


def test_what_an_older_program_began_is_not_guessed_at(tmp_path: Path) -> None:
    with held(plan(tmp_path)) as started:
        assert started.queue.asks()
        drain(started.queue)
        assert not started.queue.asks(), "all trials there are"
        started.inputs.made_by(asks=True)
        assert started.ledger.known("samplers") is None and not started.ledger.facts("code:")


def test_a_method_that_has_changed_is_said_and_never_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(plan(tmp_path)) as started:
        for _ in range(2):
            started.inputs.made_by(asks=True)
        (own,) = started.ledger.facts("code:")["absld"]

        def takes(theirs: dict[str, list[str]]) -> bool:
            return Reuse(started.plan, started.ledger, print)._same_code(theirs)  # of a start of its own

        assert takes({"absld": [own]}) and takes({}) and takes({"sat": ["other"]})
        assert "has changed" not in capsys.readouterr().out
        with monkeypatch.context() as patch:
            patch.setattr(method_code, "of", lambda method: "other")
            started.inputs.made_by(asks=True)
            assert "the code of method 'absld' has changed since this study began" in capsys.readouterr().out
            assert not takes({"absld": [own]}) and takes({"absld": ["other"]})
        started.inputs.made_by(asks=True)
        assert started.ledger.known("code:absld") == [own, "other", own]
        assert takes({"absld": [own]}) and not takes({"absld": [own, "other"]})
