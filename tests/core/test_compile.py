"""Compiled students: the same training up to rounding, and one compilation for all trials of an architecture."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from absld_search.core.trainer import Options
from tests.core.zoo import SCHEDULE, equal, trainer

pytestmark = pytest.mark.slow  # compiling takes tens of seconds


@pytest.fixture(autouse=True)
def fresh(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    counters.clear()


def test_a_second_trial_with_other_hyperparameters_compiles_nothing() -> None:
    compiled = Options(compile=True)
    first = trainer("absld", options=compiled)
    first.run_epoch()
    graphs = counters["stats"]["unique_graphs"]
    assert graphs >= 2, "the student and its copy with folded batch norm"
    for seed, words in enumerate([{"temperature_lr": 0.3, "adv_weight": 0.6}, {"eps": 0.05, "step_size": 0.02}]):
        trainer("absld", seed=seed, options=compiled, **words).run_epoch()
    assert counters["stats"]["unique_graphs"] == graphs, "recompiled"
    plain = trainer("absld")
    plain.run_epoch()
    for name, mine in first.student.state_dict().items():
        assert torch.allclose(mine.float(), plain.student.state_dict()[name].float(), atol=0.1), name


def test_a_compiled_training_resumes() -> None:
    whole, half, rest = (trainer("absld", options=Options(compile=True), schedule=SCHEDULE) for _ in range(3))
    whole.run(lambda end: None)
    half.run_epoch()
    rest.load_state_dict(half.state_dict())
    rest.run(lambda end: None)
    assert equal(whole.state_dict(), rest.state_dict())
