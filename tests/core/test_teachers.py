"""Teachers by name: found, refused, trained, measured."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from absld_search.core import data, models, robustbench_zoo, teacher_making, teachers, trial
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.words import UsageError
from absld_search.workloads import (
    WORKLOADS,
    Augmentation,
    RobustBenchTeacher,
    TeacherSpec,
    Workload,
    teacher_spec,
    workload,
)
from tests import image_files as files


def put(folders: Folders, name: str, num_classes: int = 10, model: str = "wrn-10-1") -> Path:
    path = Path(folders.teachers) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    state = models.build(model, num_classes, 3, 1).state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return path


def test_a_training_learns_from_a_file(tiny: Workload, folders: Folders, tmp_path: Path) -> None:
    path, said = put(folders, "model_cifar_wrn.pt"), []
    file = teacher_making.ensure_teacher(tiny, "file", "cpu", said.append, folders)
    assert file.path == path and len(said) == 1 and "measuring" in said[0]
    facts = teachers.facts(file)
    assert facts["sha256"] == teachers.sha256_of(path) and facts["images"] == 50
    assert {"clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy"} <= set(facts)
    config = TrialConfig.from_words({"method": "absld"}, "tiny", folders=folders)
    metrics = trial.run_trial(TrialConfig.from_dict(config.to_dict()), tmp_path / "run", lambda *_: None)
    assert "clean_accuracy" in metrics
    teacher_making.ensure_teacher(tiny, "file", "cpu", said.append, folders)
    assert len(said) == 1, "measured once"
    put(folders, "file.safetensors", model="wrn-10-1")
    assert teacher_making.ensure_teacher(tiny, "file", "cpu", said.append, folders).path.suffix == ".safetensors"


def test_the_network_that_is_asked_is_the_one_in_the_file(tiny: Workload, folders: Folders) -> None:
    put(folders, "model_cifar_wrn.pt")
    train, _ = data.load("cifar10", tiny.split, "cpu", folders.data, tiny.augmentation)
    batch = next(train.batches(8, 0, 1))
    expected = models.build("wrn-10-1", 10, 3, 1).eval()(batch.x)
    assert torch.equal(teacher_making.teacher(tiny, "file", train, folders).clean_logits(batch), expected)
    half = teacher_making.teacher(tiny, "half", train, folders)
    assert isinstance(half.model, teachers.Half)
    assert torch.equal(half.clean_logits(batch), expected), "on a CPU it stays in single precision"


def test_half_precision_takes_and_gives_floats() -> None:
    half = teachers.Half(torch.nn.Linear(4, 3))
    x = torch.rand(5, 4)
    exact = half(x)
    half.model.half()  # what `to` does on a GPU
    assert half(x).dtype == torch.float32 and torch.allclose(half(x), exact, atol=1e-2)
    assert not torch.equal(half(x), exact)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_half_precision_on_a_gpu() -> None:
    half = teachers.Half(models.build("wrn-10-1", 10, 3, 1)).to("cuda")
    assert next(half.parameters()).dtype == torch.float16 and half(torch.rand(2, 3, 32, 32).cuda()).isfinite().all()


def test_a_missing_teacher_says_what_to_put_where(tiny: Workload, folders: Folders) -> None:
    with pytest.raises(UsageError) as refused:
        teachers.require(tiny, "file", folders)
    for word in ("model_cifar_wrn.pt", "its repository", "file.safetensors", folders.teachers, "--teacher-dir"):
        assert word in str(refused.value)


def test_a_teacher_of_other_classes_is_refused_without_data(tiny: Workload, folders: Folders) -> None:
    put(folders, "model_cifar_wrn.pt", num_classes=100)
    with pytest.raises(UsageError, match="the network has 100 outputs, cifar10 has 10 classes"):
        teachers.require(tiny, "file", replace(folders, data="nowhere"))


def test_a_teacher_below_its_floor_is_refused(tiny: Workload, folders: Folders) -> None:
    put(folders, "model_cifar_wrn.pt")
    spec = replace(tiny.teachers["file"], floor=0.78)
    strict = replace(tiny, teachers={**tiny.teachers, "file": spec})
    for _ in range(2):  # nothing was noted that would let it pass the second time
        with pytest.raises(UsageError, match=r"teacher file is right on \d+\.\d% of 50 clean images .* at least 78%"):
            teacher_making.ensure_teacher(strict, "file", "cpu", lambda line: None, folders)


def test_a_file_that_changes_is_measured_again(tiny: Workload, folders: Folders) -> None:
    put(folders, "model_cifar_wrn.pt")
    before = teachers.facts(teacher_making.ensure_teacher(tiny, "file", "cpu", lambda line: None, folders))
    torch.save(models.build("wrn-10-1", 10, 3, 2).state_dict(), Path(folders.teachers) / "model_cifar_wrn.pt")
    after = teachers.facts(teacher_making.ensure_teacher(tiny, "file", "cpu", lambda line: None, folders))
    assert before["sha256"] != after["sha256"]


def test_large_networks_are_measured_on_clean_images_only_without_a_gpu(
    tiny: Workload, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folders, "model_cifar_wrn.pt")
    monkeypatch.setattr(teacher_making, "SLOW_ON_CPU", 1000)
    facts = teachers.facts(teacher_making.ensure_teacher(tiny, "file", "cpu", lambda line: None, folders))
    assert "clean_accuracy" in facts and "robust_accuracy" not in facts


def test_trained_by_name(tiny: Workload, folders: Folders) -> None:
    assert teacher_spec(tiny, "train:trades:resnet-8-2") == TeacherSpec("resnet-8-2", "trades", 1, 0.1)
    said: list[str] = []
    for _ in range(2):
        file = teacher_making.ensure_teacher(tiny, "train:trades:resnet-8-2", "cpu", said.append, folders)
    assert len(said) == 1 and file.valid() and ":" not in file.path.name
    other = Folders(
        str(files.write_cifar10(Path(folders.data) / "b", files.random_images(200), files.labels_of(200), 100))
    )
    assert teachers.teacher_file(tiny, "sat", other).path != teachers.teacher_file(tiny, "sat", folders).path, (
        "other data are another teacher"
    )


NAMES = [
    ("trades-wrn-34-1", "Did you mean 'trades-wrn-34-10'"),
    ("train:absld:resnet-18", "absld needs a teacher itself"),
    ("train:satt:resnet-18", "Did you mean 'sat'"),
    ("train:sat:resnet-19", "model 'resnet-19' is unknown"),
    ("train:sat", "or read train:METHOD:MODEL, file:STEM:MODEL, robustbench:ID"),
    ("file:mine:wrn-33-10", "6n [+] 4"),
]


@pytest.mark.parametrize(("name", "message"), NAMES)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrialConfig.from_words({"teacher": name}, "cifar10")


def test_a_persons_own_file_by_name(tiny: Workload, folders: Folders) -> None:
    put(folders, "mine.pth")
    name = "file:mine:wrn-10-1"
    assert TrialConfig.from_words({"teacher": name}, "tiny").teacher == name
    with pytest.raises(UsageError, match="at least 30%"):  # thrice chance
        teacher_making.ensure_teacher(tiny, name, "cpu", lambda line: None, folders)


def test_folders_and_device_are_no_part_of_the_identity() -> None:
    first = TrialConfig.from_words({}, "cifar10-mini", folders=Folders("a", "b"))
    assert first.key == TrialConfig.from_words({}, "cifar10-mini", device="cuda").key
    assert TrialConfig.from_dict(first.to_dict()) == first
    views = TrialConfig.from_words({"crop_fill": "reflect", "cutout": "8"}, "cifar10-mini")
    assert views.augmentation == Augmentation(4, "reflect", True, 8) and views.hash != first.hash
    assert TrialConfig.from_words({"crop_fill": "zero"}, "cifar10-mini").hash == first.hash
    for words, message in (
        ({"crop_fill": "mirror"}, "'zero'|reflect"),
        ({"cutout": -1}, "cutout must be at least 0"),
    ):
        with pytest.raises(UsageError, match=message):
            TrialConfig.from_words(words, "cifar10-mini")
    with pytest.raises(UsageError, match="cutout: workload digits shows its images as they are"):
        TrialConfig.from_words({"cutout": 2}, "digits")


def test_robustbench_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(robustbench_zoo.importlib, "import_module", absent)
    with pytest.raises(UsageError, match=re.escape("pip install 'absld_search[robustbench]'")):
        teachers.require(WORKLOADS["cifar10"], "robustbench:Chen2021LTD_WRN34_10", Folders("", "nowhere"))


def test_robustbench_has_nothing_for_digits() -> None:
    with pytest.raises(UsageError, match="no models for digits"):
        robustbench_zoo.build("Standard", "digits")
    assert teacher_spec(workload("cifar10"), "robustbench:X") == RobustBenchTeacher("X")


@pytest.mark.skipif(importlib.util.find_spec("robustbench") is None, reason="the extra robustbench is not installed")
def test_robustbench_with_the_extra(folders: Folders, tiny: Workload) -> None:
    model = robustbench_zoo.build("Chen2021LTD_WRN34_10", "cifar10")
    assert sum(p.numel() for p in model.parameters()) == 46_160_474
    with pytest.raises(UsageError, match="Did you mean 'Chen2021LTD_WRN34_10'"):
        robustbench_zoo.build("Chen2021LTD_WRN34_1", "cifar10")
    path = Path(folders.teachers) / "cifar10" / "Linf" / "Wong2020Fast.pt"
    with pytest.raises(UsageError, match="Wong2020Fast of RobustBench"):
        teachers.require(tiny, "robustbench:Wong2020Fast", folders)
    path.parent.mkdir(parents=True)
    torch.save(robustbench_zoo.build("Wong2020Fast", "cifar10").state_dict(), path)
    teachers.require(tiny, "robustbench:Wong2020Fast", folders)
