"""Weights that came from somewhere else: read without running anything, and refused with the likely cause.

The order: first bytes, size, sha256, tensors only, unwrap, prefix, number of classes, names and shapes, finite.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from absld_search.core import models
from absld_search.core.files import sha256_of
from absld_search.words import UsageError

SUFFIXES = (".safetensors", ".pt", ".pth")  # in the order in which they are looked for
LARGEST = 4 * 2**30  # bytes; WRN-70-16 has 1.1e9
LARGEST_HEADER = 2**25  # bytes of names and shapes in a safetensors file
LARGEST_WEIGHT = 1e3  # a flipped bit gives larger ones, and would load
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "model.")
NORMALISATION = {"mu", "sigma", "mean", "std", "normalize.mean", "normalize.std"}


class OtherNetwork(UsageError):
    """Weights whose names or shapes are another network's."""


def find(folder: Path, stems: tuple[str, ...]) -> Path | None:
    """The first of `stems` with one of `SUFFIXES` in `folder`; safetensors before pickles."""
    for suffix in SUFFIXES:
        for stem in stems:
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    return None


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, without wrapper and prefix, and its sha256. Raises: UsageError."""
    _sniff(path)
    size = path.stat().st_size
    if size > LARGEST:
        raise UsageError(f"weights file {path} has {size / 2**30:.1f} GiB; no known teacher has more than 4.")
    digest = sha256_of(path)
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    return _unwrapped(path, loaded), digest


def into(model: nn.Module, state: Mapping[str, Tensor], path: Path, num_classes: int, dataset: str) -> nn.Module:
    """The model with the weights of `state`, every one of them. Raises: UsageError, OtherNetwork among them."""
    _check_classes(model, state, path, num_classes, dataset)
    model = models.fitted(model, state)
    constants = {name: value for name, value in model.state_dict().items() if name in NORMALISATION}
    try:
        model.load_state_dict({**constants, **state}, strict=True)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:400]
        raise OtherNetwork(f"weights file {path} is not of this network: {said}") from None
    _check_finite(state, path)
    return model


def _sniff(path: Path) -> None:
    """What a file is by its first bytes, whatever its name says."""
    with open(path, "rb") as handle:
        head = handle.read(512)
    start = head.lstrip()[:200].lower()
    cause = None
    if not head:
        cause = "is empty: the download failed"
    elif start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        cause = "is an HTML page, not a model: a login page, or the quota notice of Google Drive"
    elif head[257:262] == b"ustar":
        cause = "is a tar archive: unpack it and give the checkpoint inside"
    elif head[:2] == b"\x1f\x8b":
        cause = "is a gzip archive: unpack it and give the checkpoint inside"
    elif head.startswith(b"version https://git-lfs"):
        cause = "is a Git LFS pointer: fetch the file itself with `git lfs pull`"
    elif head.startswith(b"PK") and path.suffix != ".safetensors" and not zipfile.is_zipfile(path):
        cause = "is cut short: its end is missing, so the download was interrupted"
    if cause:
        raise UsageError(f"weights file {path} {cause}.")


def _safetensors(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as handle:
        claimed = int.from_bytes(handle.read(8), "little")
    if claimed > min(LARGEST_HEADER, path.stat().st_size):
        raise UsageError(f"weights file {path} claims a header of {claimed} bytes: it is damaged or no safetensors.")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, json.JSONDecodeError) as error:
        raise UsageError(f"weights file {path} is damaged or cut short ({error}).") from None


def _pickled(path: Path) -> Any:
    """A .pt file, tensors only: a file that wants more is refused, never tried again with less care."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))  # the rest of torch's text advises to load it with less care
        if asked is None:
            raise UsageError(f"weights file {path} is damaged or no checkpoint: its start is not a pickle's.") from None
        raise UsageError(
            f"weights file {path} holds more than tensors, which could run code, and is not loaded: it asks for "
            f"{asked[1]}. Where you trust its source, save its state dict as safetensors elsewhere and give that."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"weights file {path} is damaged or cut short ({_first_line(error)}).") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _unwrapped(path: Path, loaded: Any) -> dict[str, Tensor]:
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UsageError(f"weights file {path} holds no state dict (weights by name).")
    state = dict(loaded)
    for prefix in PREFIXES:  # each once: what DataParallel and wrappers put before every name
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_classes(model: nn.Module, state: Mapping[str, Tensor], path: Path, num_classes: int, dataset: str) -> None:
    name = models.classifier(model)
    if name in state and len(state[name]) != num_classes:
        outputs = len(state[name])
        raise UsageError(
            f"weights file {path}: the network has {outputs} outputs, {dataset} has {num_classes} classes."
        )


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        if not value.isfinite().all():
            raise UsageError(f"weights file {path}: weight {name} is not finite.")
        largest = float(value.abs().max()) if value.numel() else 0.0
        if largest >= LARGEST_WEIGHT and "running_" not in name:
            raise UsageError(f"weights file {path}: weight {name} reaches {largest:.3g}; the file is damaged.")
