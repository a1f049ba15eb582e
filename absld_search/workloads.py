"""Named settings: on what a question is asked. A space says what varies, a workload says on what.

Everything that must be equal between the compared arms stands here: data, views, student, teachers, optimizer,
schedule, radius, evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from absld_search.words import UsageError, require_known, unknown


@dataclass(frozen=True)
class Augmentation:
    """Which views of a training image there are: crops of the padded image, flips, a blackened square."""

    padding: int = 0  # pixels on each side
    fill: str = "zero"  # what padding shows: "zero" is black, "reflect" the mirrored image
    flip: bool = False  # never where left and right mean something: digits, SVHN
    cutout: int = 0  # side of the square, pixels; above 0 no logit bank can serve the views


PLAIN = Augmentation()
FILLS = ("zero", "reflect")


COMPUTE_VERSION = 2  # raised by hand when the same words would give other numbers
COSMETIC = (
    "summary", "cost", "trials", "sampler", "teacher_epochs", "teachers", "teacher", "clean_teachers", "clean_teacher",
    "trials_per_gpu",
)  # fmt: skip


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher that is made here: adversarially trained once, then cached."""

    model: str
    method: str
    epochs: int
    learning_rate: float
    seed: int = 0
    words: Mapping[str, float | int | str] = field(default_factory=dict)  # of its method


@dataclass(frozen=True)
class FileTeacher:
    """A published teacher, from a file that the person puts into --teacher-dir.

    `floor` is the least clean accuracy on 500 images (0: three times chance); `half` runs it in half precision.
    """

    model: str
    file: str  # as it is published; under the teacher's own name it is found too
    source: str
    floor: float = 0.0
    half: bool = False


@dataclass(frozen=True)
class RobustBenchTeacher:
    """An L-infinity model of RobustBench by its id there; its code comes from the extra `robustbench`."""

    id: str
    floor: float = 0.0
    half: bool = False


Teacher = TeacherSpec | FileTeacher | RobustBenchTeacher


@dataclass(frozen=True)
class Workload:
    """One setting. Fractions in [0, 1]; radii in pixel units of [0, 1]; milestones are fractions of epochs."""

    name: str
    summary: str
    dataset: str
    student: str
    teachers: Mapping[str, Teacher]
    teacher: str  # the default among `teachers`
    split: Mapping[str, float]  # train, val, test; digits: of all, others: of the official train and test parts
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[float, ...]
    lr_factor: float
    eps: float
    step_size: float
    num_steps: int
    eval_step_size: float
    eval_every: int  # epochs between looks at val; the last epoch is always looked at
    trials: int  # per arm with something to tune
    sampler: str
    defaults: Mapping[str, float | int | str] = field(default_factory=dict)  # of methods, on this workload
    clean_teachers: Mapping[str, Teacher] = field(default_factory=dict)  # accurate, not robust
    clean_teacher: str = ""  # the one among them that the methods with two teachers ask
    monitor: float = 0.0  # share of train that methods which measure keep apart; 0: they measure on train itself
    augmentation: Augmentation = PLAIN
    teacher_epochs: int = 100  # of a teacher asked for as train:METHOD:MODEL
    cost: str = ""  # of one training
    trials_per_gpu: int = 1  # at a time, so that a large GPU is busy: by size, not by measurement

    def identity(self) -> dict[str, Any]:
        """Whatever of it changes a training's numbers; a training's own teachers are told apart by their recipes."""
        kept = {name: value for name, value in asdict(self).items() if name not in COSMETIC}
        return {**kept, "compute_version": COMPUTE_VERSION}


CLEAN = {"eps": 0.0, "num_steps": 1}  # SAT without an attack: ordinary training
DROPS = (215 / 300, 260 / 300, 285 / 300)  # where the RSLAD line of papers drops its rate
DIGITS = Workload(
    name="digits",
    summary="the 1,797 real 8x8 digits of scikit-learn, a small CNN, teachers trained here; CPU, seconds a trial",
    dataset="digits",
    student="cnn-8",
    teachers={
        "trades-wide": TeacherSpec("cnn-24", "trades", epochs=30, learning_rate=0.1),
        "trades-narrow": TeacherSpec("cnn-12", "trades", epochs=30, learning_rate=0.1),
        "sat-wide": TeacherSpec("cnn-24", "sat", epochs=30, learning_rate=0.1),
        "sat-narrow": TeacherSpec("cnn-12", "sat", epochs=30, learning_rate=0.1),
    },
    teacher="trades-wide",
    split={"train": 0.40, "val": 0.25, "test": 0.35},
    epochs=30,
    batch_size=128,
    learning_rate=0.5,
    momentum=0.9,
    weight_decay=2e-4,
    milestones=DROPS,
    lr_factor=0.1,
    eps=0.15,
    step_size=0.15 / 4,
    num_steps=10,
    eval_step_size=0.15 / 8,
    eval_every=10,
    trials=8,
    sampler="tpe",
    # CFOL's rate is for ten million images drawn; here it is 20 thousand. No monitor split: train has 72 images a
    # class, and seven of them would measure nothing.
    defaults={"sampling_lr": 2.5e-3},
    clean_teachers={"clean-wide": TeacherSpec("cnn-24", "sat", epochs=30, learning_rate=0.1, words=CLEAN)},
    clean_teacher="clean-wide",
    teacher_epochs=30,
    cost="seconds on one CPU core",
    trials_per_gpu=8,
)

GOWAL = "Gowal et al., arXiv:2010.03593, without extra data; RobustBench's file"
LTD = "LTD, Chen and Lee, arXiv:2111.02331; RobustBench's file"
# The RSLAD line's recipe. The papers train on all of train and choose checkpoints on test; here val is 300 images
# a class of train, as FRL and WAT hold out.
CIFAR10 = Workload(
    name="cifar10",
    summary="the papers' setting: CIFAR-10, ResNet-18, TRADES' WRN-34-10 as teacher, 300 epochs",
    dataset="cifar10",
    student="resnet-18",
    teachers={
        "trades-wrn-34-10": FileTeacher(
            "wrn-34-10", "model_cifar_wrn.pt", "TRADES, arXiv:1901.08573; linked from its repository", floor=0.78
        ),
        "ltd-wrn-34-10": FileTeacher("wrn-34-10", "Chen2021LTD_WRN34_10.pt", LTD, floor=0.78),
        "ltd-wrn-34-20": FileTeacher("wrn-34-20", "Chen2021LTD_WRN34_20.pt", LTD, floor=0.78),
        "gowal-wrn-70-16": FileTeacher("wrn-70-16-swish", "Gowal2020Uncovering_70_16.pt", GOWAL, floor=0.78, half=True),
        "sat-resnet-18": TeacherSpec("resnet-18", "sat", epochs=100, learning_rate=0.1),
    },
    teacher="trades-wrn-34-10",
    clean_teachers={"clean-resnet-18": TeacherSpec("resnet-18", "sat", epochs=100, learning_rate=0.1, words=CLEAN)},
    clean_teacher="clean-resnet-18",  # MTARD's own is a ResNet-56, of which nothing is published
    split={"train": 0.94, "val": 0.06, "test": 1.0},
    epochs=300,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=2e-4,
    milestones=DROPS,
    lr_factor=0.1,
    eps=8 / 255,
    step_size=2 / 255,
    num_steps=10,
    eval_step_size=0.003,
    eval_every=10,
    trials=8,
    sampler="tpe",
    augmentation=Augmentation(padding=4, flip=True),
    trials_per_gpu=2,
    cost="about 12.7e15 multiplications and 6e15 of the teacher; hours on a data-centre GPU, weeks on a CPU",
)
CIFAR10_MOBILENET = replace(
    CIFAR10,
    name="cifar10-mobilenet",
    summary="CIFAR-10, MobileNet-v2, TRADES' WRN-34-10 as teacher, 300 epochs",
    student="mobilenet-v2",
    cost="hours on a data-centre GPU, where it is bound by memory; weeks on a CPU",
)
CIFAR100 = replace(
    CIFAR10,
    name="cifar100",
    summary="CIFAR-100, ResNet-18, Gowal's WRN-70-16 in half precision as teacher, 300 epochs",
    dataset="cifar100",
    teachers={
        "gowal-wrn-70-16": FileTeacher("wrn-70-16-swish", "Gowal2020Uncovering.pt", GOWAL, floor=0.52, half=True),
        "ltd-wrn-34-10": FileTeacher("wrn-34-10", "Chen2021LTD_WRN34_10.pt", LTD, floor=0.55),
        "sat-resnet-18": TeacherSpec("resnet-18", "sat", epochs=100, learning_rate=0.1),
    },
    teacher="gowal-wrn-70-16",
    cost="as cifar10, and 11 times the teacher",
)
SVHN = replace(
    CIFAR10,
    name="svhn",
    summary="SVHN, ResNet-18, teachers trained here, 300 epochs",
    dataset="svhn",
    teachers={
        "trades-wrn-28-10": TeacherSpec("wrn-28-10", "trades", epochs=100, learning_rate=0.01),
        "sat-resnet-18": TeacherSpec("resnet-18", "sat", epochs=100, learning_rate=0.01),
    },
    teacher="trades-wrn-28-10",
    learning_rate=0.01,  # at 0.1 adversarial training on SVHN tends to stay at the most frequent class
    augmentation=Augmentation(padding=4),
    cost="one and a half times cifar10, and the teacher's training",
)
TINY_IMAGENET = replace(
    CIFAR10,
    name="tiny-imagenet",
    summary="Tiny-ImageNet-200, PreActResNet-18, teachers trained here, 300 epochs",
    dataset="tiny-imagenet",
    student="preact-resnet-18",
    teachers={
        "trades-wrn-34-10": TeacherSpec("wrn-34-10", "trades", epochs=100, learning_rate=0.1),
        "sat-preact-resnet-18": TeacherSpec("preact-resnet-18", "sat", epochs=100, learning_rate=0.1),
    },
    cost="eight times cifar10, and the teacher's training",
    trials_per_gpu=1,
)
# Sized by measurement on one busy core (2026-11-20): an image and epoch costs 10 ms here and 5 ms in cifar10-micro, in
# the teachers twice that; an image that APGD-CE looks at 13 ms.
CIFAR10_MINI = replace(
    CIFAR10,
    name="cifar10-mini",
    summary="real CIFAR-10, 200 training images a class, a narrow ResNet-8: it runs, but no worst class is learnt",
    student="resnet-8-16",
    teachers={
        "trades-wide": TeacherSpec("resnet-8-24", "trades", epochs=10, learning_rate=0.1),
        "trades-narrow": TeacherSpec("resnet-8-16", "trades", epochs=10, learning_rate=0.1),
        "sat-wide": TeacherSpec("resnet-8-24", "sat", epochs=10, learning_rate=0.1),
    },
    teacher="trades-wide",
    clean_teachers={"clean-wide": TeacherSpec("resnet-8-24", "sat", epochs=10, learning_rate=0.1, words=CLEAN)},
    clean_teacher="clean-wide",
    split={"train": 0.04, "val": 0.01, "test": 0.1},
    batch_size=64,  # at 128 there would be a dozen steps an epoch
    epochs=10,
    eval_every=5,
    teacher_epochs=10,
    cost="3 to 5 minutes on one CPU core, a few times that once for each teacher",
    trials_per_gpu=8,
)
CIFAR10_MICRO = replace(
    CIFAR10_MINI,
    name="cifar10-micro",
    summary="cifar10-mini, smaller: 150 training images a class, a ResNet-8 half as wide; no worst class is learnt",
    student="resnet-8-8",
    teachers={
        "trades-wide": TeacherSpec("resnet-8-16", "trades", epochs=10, learning_rate=0.1),
        "trades-narrow": TeacherSpec("resnet-8-8", "trades", epochs=10, learning_rate=0.1),
        "sat-wide": TeacherSpec("resnet-8-16", "sat", epochs=10, learning_rate=0.1),
    },
    split={"train": 0.03, "val": 0.008, "test": 0.08},
    eval_every=10,
    cost="60 to 90 seconds on one CPU core, minutes once for each teacher",
)

WORKLOADS: dict[str, Workload] = {
    setting.name: setting
    for setting in (
        DIGITS, CIFAR10_MICRO, CIFAR10_MINI, CIFAR10, CIFAR10_MOBILENET, CIFAR100, SVHN, TINY_IMAGENET,
    )
}  # fmt: skip
WITH_SCIKIT_LEARN = "digits"  # the data set that every installation has
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "tiny-imagenet": "Tiny-ImageNet-200"}
SMOKE = "-smoke"
FORMS = "train:METHOD:MODEL, file:STEM:MODEL, robustbench:ID"


def workload(name: str) -> Workload:
    """The workload called `name`; `NAME-smoke` is its tiny form. Raises: UsageError naming the nearest, or an entry
    that has another name than its key."""
    plain = name.removesuffix(SMOKE)
    found = WORKLOADS[require_known("workload", plain, WORKLOADS)]
    if found.name != plain:  # which names studies and teachers: two workloads would share theirs
        raise UsageError(f"workload {plain!r}: its entry in WORKLOADS says name={found.name!r}; write name={plain!r}.")
    return found if plain == name else smoke(found)


def smoke(setting: Workload) -> Workload:
    """The same path through the code with as little work as possible; its numbers mean nothing."""
    teachers, clean = (
        {name: replace(spec, epochs=1) if isinstance(spec, TeacherSpec) else spec for name, spec in known.items()}
        for known in (setting.teachers, setting.clean_teachers)
    )
    tiny = {name: min(share, 0.002 if name != "test" else 0.01) for name, share in setting.split.items()}
    split = setting.split if setting.dataset == "digits" else tiny
    small = replace(setting, name=setting.name + SMOKE, teachers=teachers, clean_teachers=clean, split=split)
    return replace(small, epochs=2, num_steps=2, eval_every=1, trials=2, teacher_epochs=1)


def teacher_spec(setting: Workload, name: str) -> Teacher:
    """The workload's teacher `name`, or one of the person's own making. Raises: UsageError."""
    known: Mapping[str, Teacher] = {**setting.teachers, **setting.clean_teachers}
    if name in known:
        return known[name]
    kind, *rest = name.split(":")
    if kind == "train" and len(rest) == 2:
        return TeacherSpec(rest[1], rest[0], setting.teacher_epochs, setting.learning_rate)
    if kind == "file" and len(rest) == 2:
        return FileTeacher(rest[1], f"{rest[0]}.pt", "your own")
    if kind == "robustbench" and len(rest) == 1:
        return RobustBenchTeacher(rest[0])
    if kind in ("train", "file", "robustbench"):
        raise UsageError(f"teacher {name!r} must be one of {', '.join(setting.teachers)}, or read {FORMS}.")
    raise unknown("teacher", name, setting.teachers)


def needs(setting: Workload) -> list[str]:
    """What a person must have before the workload can run."""
    title = DATA.get(setting.dataset, f"data set {setting.dataset}")
    data = [] if setting.dataset == WITH_SCIKIT_LEARN else [f"{title} in --data-dir"]
    files = [
        f"{spec.file} in --teacher-dir for teacher {name} ({spec.source})"
        for name, spec in setting.teachers.items()
        if isinstance(spec, FileTeacher)
    ]
    return data + files
