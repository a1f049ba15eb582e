"""Named settings: on what a question is asked. A space says what varies, a workload says on what.

Everything that must be equal between the compared arms stands here: data, student, optimizer, schedule,
radius, evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from absld_search.words import require_known


@dataclass(frozen=True)
class Augmentation:
    """Which views of a training image there are: crops of the padded image, flips, a blackened square."""

    padding: int = 0  # pixels on each side
    fill: str = "zero"  # what padding shows: "zero" is black, "reflect" the mirrored image
    flip: bool = False  # never where left and right mean something: digits, SVHN
    cutout: int = 0  # side of the square, pixels; above 0 no logit bank can serve the views


PLAIN = Augmentation()


@dataclass(frozen=True)
class TeacherSpec:
    """How a teacher is made where there is none: adversarially trained here, once, then cached."""

    model: str
    method: str
    epochs: int
    learning_rate: float
    seed: int = 0


@dataclass(frozen=True)
class Workload:
    """One setting. Fractions in [0, 1]; radii in pixel units of [0, 1]; milestones are fractions of epochs."""

    name: str
    summary: str
    dataset: str
    student: str
    teachers: Mapping[str, TeacherSpec]
    teacher: str  # the default among `teachers`
    split: Mapping[str, float]  # train, val, test
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
    batch_size=100,
    learning_rate=0.5,
    momentum=0.9,
    weight_decay=2e-4,
    milestones=(215 / 300, 260 / 300, 285 / 300),  # where the RSLAD line of papers drops its rate
    lr_factor=0.1,
    eps=0.15,
    step_size=0.15 / 4,
    num_steps=10,
    eval_step_size=0.15 / 8,
    eval_every=5,
    trials=8,
    sampler="tpe",
)

WORKLOADS: dict[str, Workload] = {"digits": DIGITS}


SMOKE = "-smoke"


def workload(name: str) -> Workload:
    """The workload called `name`; `NAME-smoke` is its tiny form. Raises: UsageError naming the nearest."""
    plain = name.removesuffix(SMOKE)
    found = WORKLOADS[require_known("workload", plain, WORKLOADS)]
    return found if plain == name else smoke(found)


def smoke(setting: Workload) -> Workload:
    """The same path through the code with as little work as possible; its numbers mean nothing."""
    teachers = {name: replace(spec, epochs=1) for name, spec in setting.teachers.items()}
    return replace(setting, name=setting.name + SMOKE, teachers=teachers, epochs=2, num_steps=2, eval_every=1, trials=2)
