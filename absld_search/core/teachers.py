"""Teachers: trained here once and cached, or read from a person's file; measured, and verified at every use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import safetensors.torch
from filelock import FileLock
from torch import Tensor, nn

from absld_search.core import data, models, robustbench_zoo, teacher_files
from absld_search.core.data import Split
from absld_search.core.files import Folders, cache_folder, sha256, sha256_of, write_atomic
from absld_search.core.logit_bank import CHUNK, LogitBank, Network, chunk
from absld_search.words import UsageError
from absld_search.workloads import FileTeacher, RobustBenchTeacher, TeacherSpec, Workload, teacher_spec

NOWHERE = Folders()


class Maker(Protocol):
    """How teachers are trained and measured; handed in, so that this file knows no trainer."""

    def train(self, spec: TeacherSpec, partial: Path) -> nn.Module: ...
    def measure(self, model: nn.Module, floor: float) -> dict[str, float]: ...


class Half(nn.Module):
    """A network in half precision on a GPU, as RSLAD ran its WRN-70-16; what goes in and comes out is float.

    On a CPU it stays in single precision: half precision is a hundred times slower there.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def to(self, *where: Any, **words: Any) -> Half:
        super().to(*where, **words)
        if next(self.model.parameters()).is_cuda:
            self.model.half()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.to(next(self.model.parameters()).dtype)).float()


@dataclass(frozen=True)
class TeacherFile:
    """Where a teacher lies, and what it must be."""

    path: Path
    facts: Path

    def valid(self) -> bool:
        """Whether the weights are those whose hash was noted when they were measured."""
        try:
            return sha256_of(self.path) == json.loads(self.facts.read_text())["sha256"]
        except (OSError, ValueError, KeyError):
            return False

    def write(self, model: nn.Module, accuracies: dict[str, float]) -> None:
        content = safetensors.torch.save({k: v.cpu().contiguous() for k, v in model.state_dict().items()})
        write_atomic(self.path, content, "teacher")
        self.note(sha256(content), accuracies)

    def note(self, digest: str, accuracies: dict[str, float]) -> None:
        write_atomic(self.facts, json.dumps({"sha256": digest, **accuracies}, indent=1).encode(), "teacher")


class Shape(NamedTuple):
    """What a teacher of a data set takes and gives."""

    num_classes: int
    channels: int
    size: int


def require(setting: Workload, name: str, folders: Folders) -> None:
    """Everything about a teacher that can be known without data. Raises: UsageError saying what to put where."""
    spec = teacher_spec(setting, name)
    if isinstance(spec, TeacherSpec):
        models.check_name(spec.model)
    else:
        _read(setting, name, folders)


def teacher_file(setting: Workload, name: str, folders: Folders = NOWHERE) -> TeacherFile:
    """Its place: of a person's file where it lies, of one made here in the cache, where each recipe has its own."""
    spec, place = teacher_spec(setting, name), cache_folder() / "teachers"
    if isinstance(spec, TeacherSpec):
        mark = sha256(json.dumps(_recipe(setting, spec, folders), sort_keys=True).encode())[:12]
        path = place / f"{setting.name}-{name.replace(':', '-')}-{mark}.safetensors"
        return TeacherFile(path, path.with_suffix(".json"))
    path = _find(setting, name, spec, folders)
    measured: dict[str, object] = {
        "dataset": data.identity(setting.dataset, folders.data),
        "split": dict(setting.split),
    }
    measured |= {"spec": asdict(spec), "eps": setting.eps, "step": setting.eval_step_size, "file": sha256_of(path)}
    mark = sha256(json.dumps(measured, sort_keys=True).encode())[:12]
    return TeacherFile(path, place / f"measured-{path.stem}-{mark}.json")


def _recipe(setting: Workload, spec: TeacherSpec, folders: Folders) -> dict[str, object]:
    own = ("student", "epochs", "learning_rate", "defaults", "monitor", "eval_every")  # the student's own affairs
    shared = {name: value for name, value in setting.identity().items() if name not in own}
    images = {"data": data.identity(setting.dataset, folders.data), "split_seed": data.SPLIT_SEED}
    return {**shared, **images, "teacher": asdict(spec)}


def ensure(
    setting: Workload, name: str, maker: Maker, say: Callable[[str], None], folders: Folders = NOWHERE
) -> TeacherFile:
    """The teacher's file, made or measured first where that is missing; of several processes one does it."""
    spec, file = teacher_spec(setting, name), teacher_file(setting, name, folders)
    with making(file):
        if file.valid():
            return file
        if isinstance(spec, TeacherSpec):
            say(f"training teacher {name} for {setting.name} (once, then kept in {file.path.parent})")
            partial = file.path.with_suffix(".partial")
            model = maker.train(spec, partial)
            file.write(model, maker.measure(model, floor=0.0))
            shutil.rmtree(partial, ignore_errors=True)
        else:
            say(f"measuring teacher {name} of {file.path} (once)")
            model, digest = _read(setting, name, folders)
            file.note(digest, maker.measure(model, spec.floor or 3 / _shape(setting).num_classes))
    return file


def making(file: TeacherFile) -> FileLock:
    """The lock of whoever makes or fetches a teacher on this machine."""
    file.facts.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file.facts.with_suffix('')}.lock")


def facts(file: TeacherFile) -> dict[str, float | str]:
    """sha256 and measured accuracies (fractions, on val)."""
    return json.loads(file.facts.read_text())


def load(
    setting: Workload, name: str, file: TeacherFile, split: Split, folders: Folders = NOWHERE, stream: int = 0
) -> Network:
    """The teacher on the split's device, with a logit bank where views can be numbered. `stream`: whose views.

    The network is built when it is first asked: where the bank has all answers, it never is.
    """

    def made() -> nn.Module:
        return _network(setting, name, file, split, folders).to(split.labels.device)

    if not split.num_views:
        return Network(made, name)
    return LogitBank(made, name, split, stream, bank_folder(setting, name, file, split, folders))


def bank_folder(setting: Workload, name: str, file: TeacherFile, split: Split, folders: Folders = NOWHERE) -> Path:
    """Where the logits of this teacher on these images and views lie; computed on another kind of device, elsewhere."""
    asked = {
        "teacher": facts(file)["sha256"],
        "spec": asdict(teacher_spec(setting, name)),
        "data": data.identity(setting.dataset, folders.data),
        "images": sha256(split.ids.cpu().numpy().tobytes()),
        "views": asdict(split.how),
        "device": split.labels.device.type,
    }
    if (size := chunk(split)) != CHUNK[split.labels.device.type]:
        asked["chunk"] = size
    if asked["device"] == "cpu":
        asked["network"] = "settled"  # as `folding.settled` computes it: blocks of earlier versions have other bits
    mark = sha256(json.dumps(asked, sort_keys=True).encode())[:12]
    return cache_folder() / "logits" / f"{setting.name}-{name.replace(':', '-')}-{mark}"


def _network(setting: Workload, name: str, file: TeacherFile, split: Split, folders: Folders) -> nn.Module:
    spec = teacher_spec(setting, name)
    if not isinstance(spec, TeacherSpec):
        return _read(setting, name, folders)[0]
    model = models.build(spec.model, split.num_classes, split.image_shape[0], 0, size=split.image_shape[1])
    model.load_state_dict(safetensors.torch.load_file(file.path), strict=True)
    return model


def _read(setting: Workload, name: str, folders: Folders) -> tuple[nn.Module, str]:
    """A person's file as a network of this data set, and its sha256. Raises: UsageError."""
    spec, shape = teacher_spec(setting, name), _shape(setting)
    assert not isinstance(spec, TeacherSpec)
    if isinstance(spec, RobustBenchTeacher):
        model = robustbench_zoo.build(spec.id, setting.dataset)  # first: a wrong id has no file either
        path = _find(setting, name, spec, folders)
    else:
        path = _find(setting, name, spec, folders)
        model = models.build(spec.model, shape.num_classes, shape.channels, 0, size=shape.size)
    state, digest = teacher_files.read(path)
    model = teacher_files.into(model, state, path, shape.num_classes, setting.dataset)
    return (Half(model) if spec.half else model), digest


def _find(setting: Workload, name: str, spec: FileTeacher | RobustBenchTeacher, folders: Folders) -> Path:
    if isinstance(spec, RobustBenchTeacher):
        folder, stems = robustbench_zoo.place(folders.teachers, setting.dataset, spec.id)
        source = f"{spec.id} of RobustBench, {setting.dataset}, Linf"
    else:
        folder, stems, source = Path(folders.teachers), (name.replace(":", "-"), Path(spec.file).stem), spec.source
    found = teacher_files.find(folder, stems)
    if found is None:
        raise UsageError(
            f"--teacher-dir: teacher {name} of {setting.name} is missing. Put {stems[-1]}.pt ({source}) or "
            f"{stems[0]}.safetensors into {folder.absolute()}, or name another folder with --teacher-dir."
        )
    return found


def _shape(setting: Workload) -> Shape:
    return Shape(*data.shape(setting.dataset))
