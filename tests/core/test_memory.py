"""Out of memory: the step is done once more with the same mathematics, and the second time the training has failed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from absld_search.core import memory, results, trial
from absld_search.core.config import TrialConfig
from absld_search.core.methods import METHODS
from absld_search.core.trainer import Trainer
from tests.core.zoo import equal, same, trainer

SMOKE = TrialConfig.from_words({"epochs": 2}, "digits-smoke")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")


def full_at(trained: Trainer, step: int, times: int = 1, where: str = "backward") -> list[int]:
    """The device is full in a training's `step`th step, after everything that a step changes has changed."""
    trained.rescue.active = True
    real, calls, left = trained._gradients, [0], [times]

    def gradients(*words: Any) -> Any:
        calls[0] += 1
        if where == "before":
            _fail(calls[0] >= step, left)
        found = real(*words)
        _fail(calls[0] >= step, left)
        return found

    trained._gradients = gradients  # type: ignore[method-assign]
    return calls


def _fail(due: bool, left: list[int]) -> None:
    if due and left[0]:
        left[0] -= 1
        raise FULL


@pytest.mark.parametrize("name", METHODS)
def test_m1_a_repeated_step_equals_the_step_to_the_bit(name: str) -> None:
    """Weights, batch norm, and the method's own state, after the whole training; and a step was really repeated."""
    knobs = {"label_source": "ema"} if name == "absld" else {}
    plain, rescued = trainer(name, num_steps=2, **knobs), trainer(name, num_steps=2, **knobs)
    calls, usual = full_at(rescued, step=3), full_at(plain, step=10**9)
    for one in (plain, rescued):
        one.run(lambda end: None)
    assert calls[0] == usual[0] + 1
    states = [{**found.state_dict(), "counts": {}} for found in (plain, rescued)]  # a repeated step asks again
    assert same(plain, rescued) and equal(*states)


def test_m1_the_gradients_themselves_are_equal() -> None:
    found: list[list[Tensor]] = []
    for times in (0, 1):
        trained = trainer("absld")
        full_at(trained, step=1, times=times)
        step = trained.optimizer.step
        kept: list[Tensor] = []
        trained.optimizer.step = lambda kept=kept, trained=trained, step=step: (  # type: ignore[method-assign]
            kept.extend(p.grad.clone() for p in trained.student.parameters()), step())[1]  # fmt: skip
        trained.run_epoch()
        found.append(kept)
    assert len(found[0]) == len(found[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_without_restoring_the_numbers_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    monkeypatch.setattr(memory._Before, "restore", lambda self: None)
    plain, rescued = trainer("absld"), trainer("absld")
    full_at(rescued, step=1)
    for one in (plain, rescued):
        one.run_epoch()
    assert not same(plain, rescued)


def test_it_is_said_once_and_shown_in_every_later_epoch(caplog: pytest.LogCaptureFixture) -> None:
    trained, shown = trainer("sat"), []
    full_at(trained, step=3)  # two steps an epoch
    with caplog.at_level(logging.WARNING):
        trained.run(lambda end: shown.append("memory/on_host" in end.metrics))
    assert shown == [False, True]
    assert ["out of memory" in record.message for record in caplog.records] == [True]


def test_the_second_time_it_is_raised() -> None:
    trained = trainer("sat")
    full_at(trained, step=1, times=2)
    with pytest.raises(torch.OutOfMemoryError):
        trained.run_epoch()
    assert trained.epoch == 0


def test_saving_on_the_host_changes_no_bit() -> None:
    """What the rescue does on a GPU, done on the CPU: pack to the host, unpack, the same gradients."""
    plain, saving = trainer("absld"), trainer("absld")
    saving.rescue.active = saving.rescue.on_host = True
    packed: list[int] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(1) or t.clone(), lambda t: t.clone())
    saving.rescue._saving = lambda: hooks  # type: ignore[method-assign]
    for one in (plain, saving):
        one.run(lambda end: None)
    assert packed and same(plain, saving)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_full_gpu_is_survived_with_equal_numbers() -> None:
    """A real allocator at its limit: a step that needs 1.5 times what is left without the host, and fits with it."""
    from absld_search.core import data, models
    from absld_search.core.trainer import Schedule

    def new() -> Trainer:
        generator = torch.Generator().manual_seed(0)
        images, ids = torch.rand(512, 3, 32, 32, generator=generator).cuda(), torch.arange(512).cuda()
        split = data.Split(images, ids % 10, ids, 10)
        student = models.build("resnet-18", 10, 3, 0, size=32).to("cuda")
        return Trainer(student, METHODS["sat"](num_steps=2), {}, split, Schedule(1, 256, 0.1, 0.9, 0.0, (), 0.1), 0)

    torch.use_deterministic_algorithms(True, warn_only=True)
    plain = new()
    torch.cuda.reset_peak_memory_stats()
    plain.run_epoch()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * torch.cuda.max_memory_reserved() / total)
    rescued = new()
    rescued.run_epoch()
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert rescued.rescue.on_host
    pairs = zip(plain.student.state_dict().values(), rescued.student.state_dict().values(), strict=True)
    assert all(torch.allclose(a.float(), b.float(), atol=1e-6) for a, b in pairs)


def test_what_memory_it_was() -> None:
    assert memory.reason(FULL) == "oom"
    assert memory.reason(MemoryError()) == "oom_host"
    real = pytest.raises(RuntimeError, torch.empty, 2**60, dtype=torch.uint8).value
    assert memory.reason(real) == "oom_host", "how this torch says it"
    assert memory.reason(RuntimeError("shape mismatch")) is None and memory.reason(ValueError()) is None


@pytest.mark.parametrize(("error", "reason"), [(FULL, "oom"), (MemoryError(), "oom_host")])
def test_m1_m2_through_the_worker(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a Ray worker answers: a failure with its reason, so that the search goes on, and no result on disk."""
    from absld_search.search import worker

    real = trial._trainer

    def small(*words: Any) -> Trainer:
        trained = real(*words)
        trained.rescue.active = True
        trained._gradients = lambda *_: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        return trained

    monkeypatch.setattr(trial, "_trainer", small)
    job = {"training": SMOKE.key, "job": SMOKE.to_dict()}
    found = worker.train(job, str(tmp_path), {"data": "", "teachers": ""})
    assert found.pop("seconds") > 0, "a failure is paid for too"
    assert found == {"failed": reason, "epochs": 0, "notes": []}
    assert results.read_result(tmp_path / SMOKE.key) is None
