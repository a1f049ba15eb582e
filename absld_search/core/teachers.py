"""Teachers: verified files in the cache, trained once where they are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from torch import Tensor, nn

from absld_search.core import models
from absld_search.core.data import Batch, Split
from absld_search.core.files import cache_folder, sha256, write_atomic
from absld_search.workloads import TeacherSpec, Workload

TrainTeacher = Callable[[TeacherSpec], tuple[nn.Module, dict[str, float]]]


class Network:
    """A teacher that is asked anew for every batch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)

    @torch.no_grad()
    def clean_logits(self, batch: Batch) -> Tensor:
        """(B, C) logits on the batch's views."""
        return self.model(batch.x)


class Tabulated(Network):
    """A teacher of a split that has one view per image: asked once, then looked up."""

    def __init__(self, model: nn.Module, split: Split) -> None:
        super().__init__(model)
        with torch.no_grad():
            logits = self.model(split.images)
        self.table = logits.new_zeros(int(split.ids.max()) + 1, logits.shape[1])
        self.table[split.ids] = logits

    def clean_logits(self, batch: Batch) -> Tensor:
        return self.table[batch.index]


@dataclass(frozen=True)
class TeacherFile:
    """Where a teacher lies, and what it must be."""

    path: Path
    facts: Path

    def valid(self) -> bool:
        """Whether the weights are those whose hash was noted when they were measured."""
        try:
            noted = json.loads(self.facts.read_text())["sha256"]
            return sha256(self.path.read_bytes()) == noted
        except (OSError, ValueError, KeyError):
            return False

    def write(self, model: nn.Module, accuracies: dict[str, float]) -> None:
        content = safetensors.torch.save({k: v.cpu().contiguous() for k, v in model.state_dict().items()})
        write_atomic(self.path, content)
        write_atomic(self.facts, json.dumps({"sha256": sha256(content), **accuracies}, indent=1).encode())


def teacher_file(setting: Workload, name: str) -> TeacherFile:
    """Its place in the cache: a different recipe is a different file."""
    spec = setting.teachers[name]
    recipe = {**asdict(spec), "dataset": setting.dataset, "split": dict(setting.split), "eps": setting.eps}
    recipe |= {"batch": setting.batch_size, "steps": setting.num_steps, "step_size": setting.step_size}
    mark = sha256(json.dumps(recipe, sort_keys=True).encode())[:12]
    path = cache_folder() / "teachers" / f"{setting.name}-{name}-{mark}.safetensors"
    return TeacherFile(path, path.with_suffix(".json"))


def ensure(setting: Workload, name: str, train: TrainTeacher, say: Callable[[str], None]) -> TeacherFile:
    """The teacher's file, trained first where it is missing or damaged; of several processes one trains."""
    file = teacher_file(setting, name)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file.path}.lock"):
        if not file.valid():
            say(f"training teacher {name} for {setting.name} (once, then kept in {file.path.parent})")
            file.write(*train(setting.teachers[name]))
    return file


def facts(file: TeacherFile) -> dict[str, float | str]:
    """sha256 and measured accuracies (fractions, on val)."""
    return json.loads(file.facts.read_text())


def load(setting: Workload, name: str, file: TeacherFile, split: Split) -> Network:
    """The teacher on the split's device, tabulated where every image has one view."""
    model = models.build(setting.teachers[name].model, split.num_classes, split.image_shape[0], seed=0)
    model.load_state_dict(safetensors.torch.load_file(file.path), strict=True)
    model.to(split.labels.device)
    return Tabulated(model, split) if split.num_views == 1 else Network(model)
