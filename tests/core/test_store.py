"""A store of trainings: on a file system here, on a real S3 server where moto is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from absld_search.core import checkpoints, results
from absld_search.core.store import Store
from absld_search.words import UsageError
from tests.cluster import objects


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    if reason := objects.why_not():
        pytest.skip(reason)
    with objects.server(tmp_path) as found:
        for name, value in objects.KEYS.items():
            monkeypatch.setenv(name, value)
        yield found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_training_goes_on_wherever_it_is_fetched(uri: str, tmp_path: Path) -> None:
    here, there, store = tmp_path / "here", tmp_path / "there", Store(uri)
    store.check()
    for epoch in (1, 2, 3):
        checkpoints.save(here, epoch, {"epoch": epoch, "weights": torch.arange(1000)})
        (here / "epochs.jsonl").write_text("\n{}" * epoch)
        (here / "lock").touch()
        store.push(here, "study/trainings/a-s0")
    store.pull("study/trainings/a-s0", there)
    assert names(there) == names(here) - {"lock"} and len(names(there)) == 3, "two checkpoints and the log"
    state = checkpoints.newest(there)
    assert state is not None and state["epoch"] == 3
    assert torch.equal(state["weights"], torch.arange(1000))
    checkpoints.remove(there)
    results.write_json(there / "result.json", {"files": {}, "result": {"robust_accuracy": 0.5}})
    store.push(there, "study/trainings/a-s0")
    store.pull("study/trainings/a-s0", tmp_path / "driver")
    assert results.read_result(tmp_path / "driver") == {"robust_accuracy": 0.5}
    assert names(tmp_path / "driver") == {"result.json", "epochs.jsonl"}, "what is deleted here is deleted there"


def test_what_is_further_here_is_not_set_back(uri: str, tmp_path: Path) -> None:
    here, store = tmp_path / "here", Store(uri)
    checkpoints.save(here, 1, {"epoch": 1})
    (here / "epochs.jsonl").write_text("\n1")
    store.push(here, "a")
    checkpoints.save(here, 2, {"epoch": 2})
    (here / "epochs.jsonl").write_text("\n1\n2")
    store.pull("a", here)
    state = checkpoints.newest(here)
    assert state == {"epoch": 2} and (here / "epochs.jsonl").read_text() == "\n1\n2"


def test_what_is_not_there_is_nothing(uri: str, tmp_path: Path) -> None:
    Store(uri).pull("never/made", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("uri", ["results", "memory://x", "nowhere://bucket/key"])
def test_a_place_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="--store"):
        Store(uri)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="nothing can be written there"):
        Store(f"file://{tmp_path}/file/below").check()
