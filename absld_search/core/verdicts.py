"""Verdicts of finished batches on disk, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from absld_search.core.files import write_atomic


class Store:
    """One small file per stage and batch in a folder; each names what it is of, and any other is ignored."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def get(self, stage: str, batch: int, rows: Tensor) -> Tensor | None:
        """The verdicts (b,) of those rows, on the CPU; None where they were not stored, or by another evaluation."""
        try:
            found = json.loads(self._path(stage, batch).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("of") != self._of(stage, rows):
            return None
        return torch.tensor([letter == "1" for letter in found["right"]], dtype=torch.bool)

    def put(self, stage: str, batch: int, rows: Tensor, right: Tensor) -> None:
        """Keep the verdicts (b,) of those rows (b,)."""
        letters = "".join("1" if verdict else "0" for verdict in right.tolist())
        content = json.dumps({"of": self._of(stage, rows), "right": letters})
        write_atomic(self._path(stage, batch), content.encode())

    def clear(self) -> None:
        """Remove this evaluation's files, and no other's; the folder too where nothing else is in it."""
        for path in self.folder.glob(f"{self.identity[:12]}-*.verdicts.json"):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _of(self, stage: str, rows: Tensor) -> str:
        asked = json.dumps([self.identity, stage, rows.tolist()])
        return hashlib.sha256(asked.encode()).hexdigest()

    def _path(self, stage: str, batch: int) -> Path:
        return self.folder / f"{self.identity[:12]}-{stage}-{batch:04d}.verdicts.json"


def identity(model: nn.Module, *tensors: Tensor, **numbers: float | int | str) -> str:
    """A sha256 of weights, tensors and numbers: equal where an evaluation would repeat itself to the bit."""
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
