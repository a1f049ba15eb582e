"""Teachers that came from somewhere else: each kind of bad file has its message, and none of them runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from absld_search.core import models, teacher_files
from absld_search.words import UsageError

MODEL = "wrn-10-1"


def network(num_classes: int = 10) -> nn.Module:
    return models.build(MODEL, num_classes, 3, 7)


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def loaded(path: Path) -> nn.Module:
    state, _ = teacher_files.read(path)
    return teacher_files.into(models.build(MODEL, 10, 3, 0), state, path, 10, "cifar10")


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in network().state_dict().items()}


GOOD: dict[str, Callable[[], object]] = {
    "plain": lambda: network().state_dict(),
    "state_dict": lambda: {"state_dict": network().state_dict(), "epoch": 76},
    "model": lambda: {"model": network().state_dict()},
    "net": lambda: {"net": prefixed("module."), "acc": 84.92},
    "module.": lambda: prefixed("module."),
    "model.": lambda: prefixed("model."),
    "module.model.": lambda: {"state_dict": prefixed("module.model.")},
}


@pytest.mark.parametrize("form", GOOD)
def test_every_form_in_which_checkpoints_are_published(form: str, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(saved(GOOD[form]()))
    assert equal(loaded(path), network())


def test_safetensors_and_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(network().state_dict(), path)
    assert equal(loaded(path), network())
    old = tmp_path / "old.pth"
    torch.save(network().state_dict(), old, _use_new_zipfile_serialization=False)
    assert equal(loaded(old), network())


def test_safetensors_come_first_and_the_hash_is_the_files(tmp_path: Path) -> None:
    for name in ("b.pt", "a.pth", "a.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert teacher_files.find(tmp_path, ("a", "b")) == tmp_path / "b.safetensors"
    (tmp_path / "b.safetensors").unlink()
    assert teacher_files.find(tmp_path, ("a", "b")) == tmp_path / "a.pt"
    assert teacher_files.find(tmp_path, ("c",)) is None
    import hashlib

    path = tmp_path / "c.pt"
    path.write_bytes(saved(network().state_dict()))
    assert teacher_files.read(path)[1] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_without_the_unused_block_loads_too(tmp_path: Path) -> None:
    path = tmp_path / "ltd.pt"
    state = {name: value for name, value in network().state_dict().items() if not name.startswith("sub_block1.")}
    path.write_bytes(saved(state))
    found, x = loaded(path).eval(), torch.rand(2, 3, 32, 32)
    assert torch.equal(found(x), network().eval()(x))


def tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("model.pt")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def damaged(change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    state = network().state_dict()
    change(state)
    return saved(state)


def bit_flipped(state: dict[str, torch.Tensor]) -> None:
    state["block2.layer.0.conv1.weight"][0, 0, 0, 0] = 15064.0


WHOLE = saved(network().state_dict())
SAFE = safetensors.torch.save(network().state_dict())
BAD: list[tuple[str, str, bytes, str]] = [
    ("empty", ".pt", b"", "is empty: the download failed"),
    ("one byte", ".pt", WHOLE[:1], "damaged or no checkpoint|cut short"),
    ("half", ".pt", WHOLE[: len(WHOLE) // 2], "is cut short: its end is missing"),
    ("almost whole", ".pt", WHOLE[: len(WHOLE) * 999 // 1000], "is cut short: its end is missing"),
    ("html", ".pt", b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota", "is an HTML page, not a model"),
    ("html upper", ".pt", b"<HTML><body>Virus scan warning</body>", "is an HTML page, not a model"),
    ("html as safetensors", ".safetensors", b"<html>", "is an HTML page, not a model"),
    ("tar", ".pt", tar(WHOLE), "is a tar archive"),
    ("gzip", ".pt", b"\x1f\x8b\x08" + bytes(40), "is a gzip archive"),
    ("lfs", ".pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    ("text", ".pt", b"404: Not Found", "damaged or no checkpoint|cut short"),
    ("empty safetensors", ".safetensors", b"", "is empty"),
    ("half safetensors", ".safetensors", SAFE[: len(SAFE) // 2], "is damaged or cut short"),
    ("almost whole safetensors", ".safetensors", SAFE[: len(SAFE) * 999 // 1000], "is damaged or cut short"),
    ("header bomb", ".safetensors", struct.pack("<Q", 2**30) + bytes(99), "claims a header of 1073741824 bytes"),
    ("wrong classes", ".pt", saved(network(100).state_dict()), "the network has 100 outputs, cifar10 has 10 classes"),
    ("nan", ".pt", damaged(lambda s: s["conv1.weight"].fill_(float("nan"))), "weight conv1.weight is not finite"),
    ("nan statistics", ".pt", damaged(lambda s: s["bn1.running_var"].fill_(float("inf"))), "running_var is not finite"),
    ("flipped bit", ".pt", damaged(bit_flipped), "reaches 1.51e[+]04; the file is damaged"),
    ("missing weight", ".pt", damaged(lambda s: s.pop("block1.layer.0.conv1.weight")), "network: .*Missing key"),
    ("other network", ".pt", saved(models.build("resnet-8-16", 10, 3, 0).state_dict()), "is not of this network"),
    ("other prefix", ".pt", saved(prefixed("encoder.")), "is not of this network: .*Missing key"),
    ("number", ".pt", saved(3), "holds no state dict"),
    ("list", ".pt", saved([torch.zeros(2)]), "holds no state dict"),
    ("nothing inside", ".pt", saved({}), "holds no state dict"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "content", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_files_give_their_message(suffix: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"teacher{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"(?s){message}") as refused:
        loaded(path)
    assert str(path) in str(refused.value) and len(str(refused.value)) < 900
    assert "weights_only" not in str(refused.value), "no advice to load it with less care"


class Evil:
    """What a malicious checkpoint is: an object whose loading makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("form", ["zip", "old", "pickle", "inside", "named safetensors"])
def test_a_pickle_that_would_run_code_never_runs(form: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "teacher.pt"
    if form == "zip":
        path.write_bytes(saved(Evil(canary)))
    elif form == "inside":
        path.write_bytes(saved({"state_dict": network().state_dict(), "args": Evil(canary)}))
    elif form == "old":
        torch.save(Evil(canary), path, _use_new_zipfile_serialization=False)
    else:
        path = path.with_suffix(".safetensors") if form.startswith("named") else path
        path.write_bytes(pickle.dumps(Evil(canary), protocol=2))
    message = (
        "claims a header|is damaged" if path.suffix == ".safetensors" else "more than tensors, which could run code"
    )
    with pytest.raises(UsageError, match=message):
        loaded(path)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The fixture is a real threat: an unguarded load runs it."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()


def test_a_file_beyond_any_teacher_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(WHOLE)
    monkeypatch.setattr(teacher_files, "LARGEST", len(WHOLE) - 1)
    monkeypatch.setattr(teacher_files, "sha256_of", lambda path: pytest.fail("read"))
    with pytest.raises(UsageError, match="GiB"):
        teacher_files.read(path)


def test_unsafe_loading_stands_nowhere_in_the_code() -> None:
    for path in (Path(__file__).parents[2] / "absld_search").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "weights_only=False" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path
