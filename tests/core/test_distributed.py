"""Several processes train as one does: real processes, gloo, double precision."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from absld_search.core import distributed, models, teachers
from absld_search.core.data import Split
from absld_search.core.distributed import Group, SharedTrainer, joined, slice_of
from absld_search.core.methods import METHODS
from absld_search.core.trainer import Schedule, Trainer
from absld_search.words import UsageError
from tests.core.zoo import small

SCHEDULE = Schedule(2, 64, 0.2, 0.9, 2e-4, (0.5,), 0.1)  # the last batch of 200 has 8
OFTEN = "absld-often"  # temperatures move every third iteration, of four in an epoch
CASES = [(name, norm) for name in (*distributed.METHODS, OFTEN) for norm in (False, True)]


def without_batch_norm(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.Identity())
    return model


def made(kind: type[Trainer], name: str, norm: bool) -> Trainer:
    """A training in double precision."""
    train = small()
    train = Split(train.images.double(), train.labels, train.ids, 10)
    student = models.build("cnn-4", 10, 1, seed=0).double()
    words = {"update_unit": "iteration", "update_every": 3} if name == OFTEN else {}
    start = "uniform" if norm else "gaussian"
    method = METHODS[name.removesuffix("-often")](eps=0.1, step_size=0.05, num_steps=2, attack_start=start, **words)
    asked = {"robust": teachers.Network(models.build("cnn-12", 10, 1, seed=5).double())}
    return kind(student if norm else without_batch_norm(student), method, asked, train, SCHEDULE, 3)


def curve(trained: Trainer) -> list[dict[str, Any]]:
    """What each epoch reports, and the method's and the student's state at the end."""
    found: list[dict[str, Any]] = []
    trained.run(lambda end: found.append(end.metrics))
    state = trained.state_dict()
    return [*found, dict(leaves(state["method"], "method")), dict(leaves(state["student"], "student"))]


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every tensor in nested dictionaries, as lists, by its path."""
    if isinstance(value, torch.Tensor):
        yield name, value.tolist()
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{name}/{key}")


def one_of(rank: int, folder: Path, size: int) -> None:
    torch.set_num_threads(1)
    with joined(Group(rank, size, folder / "meeting"), "cpu"):
        found = [curve(made(SharedTrainer, *case)) for case in CASES]
        before, resumed = made(SharedTrainer, "absld", True), made(SharedTrainer, "absld", True)
        before.run_epoch()
        if rank == 0:  # alone has read a checkpoint
            resumed.load_state_dict(before.state_dict())
        assert isinstance(resumed, SharedTrainer)
        resumed.agree()
        found.append(curve(resumed))
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[list[list[dict[str, Any]]]]:
    """What each of two processes found, case by case."""
    folder = tmp_path_factory.mktemp("group")
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=one_of, args=(rank, folder, 2)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def close(ours: Any, wanted: Any, bound: float, name: str) -> None:
    """Equal up to `bound`; what is not measured yet is nan in both."""
    pair = [torch.tensor(values, dtype=torch.float64).reshape(-1) for values in (ours, wanted)]
    torch.testing.assert_close(*pair, rtol=bound, atol=bound, equal_nan=True, msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'norm' if case[1] else 'plain'}")
def test_two_processes_train_as_one_with_the_whole_batch(case: tuple[str, bool], shared: Any) -> None:
    """Loss, accuracies by class, temperatures, weights and running statistics, over two epochs."""
    first, second = (found[CASES.index(case)] for found in shared)
    alone = curve(made(Trainer, *case))
    for ours, theirs, wanted in zip(first, second, alone, strict=True):
        assert ours.keys() == theirs.keys() == wanted.keys()
        for name, value in wanted.items():
            close(ours[name], value, 1e-9, name)
            close(ours[name], theirs[name], 0, f"{name}: the processes have drifted apart")


def test_all_go_on_from_what_the_first_has_read(shared: Any) -> None:
    whole = curve(made(Trainer, "absld", True))
    for found in shared:
        epoch, *states = found[-1]
        for ours, wanted in zip([epoch, *states], whole[1:], strict=True):
            for name, value in wanted.items():
                close(ours[name], value, 1e-9, name)


def test_slices_are_the_batch_once() -> None:
    for count in range(1, 40):
        for size in range(1, count + 1):
            slices = [slice_of(count, rank, size) for rank in range(size)]
            assert [row for part in slices for row in range(count)[part]] == list(range(count))
            assert {part.stop - part.start for part in slices} <= {count // size, -(-count // size)}


def test_what_is_no_mean_over_samples_is_refused() -> None:
    distributed.require("frl", 1)
    with pytest.raises(UsageError, match="processes-per-trial"):
        distributed.require("frl", 2)


def test_nobody_waits_for_hours_for_one_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "MEETING", timedelta(milliseconds=200))
    with pytest.raises(TimeoutError, match="have not met"), joined(Group(0, 2, tmp_path / "meeting"), "cpu"):
        pytest.fail("the other one is not there")
