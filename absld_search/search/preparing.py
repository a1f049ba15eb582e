"""What every machine of a cluster needs before its slots fill: data decoded, teachers in its cache, all the same.

Otherwise the first trainings of a machine would all wait for the one that makes them. A teacher that is trained here is
trained once, on the machine that is asked first, and sent to the others: two machines may round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from absld_search.core import data, teachers
from absld_search.core.files import Folders
from absld_search.core.teacher_making import ensure_teacher
from absld_search.search import resources
from absld_search.search.plan import Plan
from absld_search.search.teacher_copies import Made, read, take_over, trained_here
from absld_search.words import UsageError
from absld_search.workloads import workload


class Found(NamedTuple):
    """What a machine has."""

    data: dict[str, object]
    teachers: dict[str, Made]


def on_each_node(plan: Plan, say: Callable[[str], None]) -> Found:
    """Prepare them, one first, then all others at once; what they have.

    Raises: UsageError where they differ; ConnectionError where those that were there have gone.
    """
    places = [node for node in ray.nodes() if node["Alive"] and resources.fits(_share(plan), node["Resources"])]
    if not places:
        raise ConnectionError("no machine is left on which a process of a training fits")
    names = [node["NodeManagerHostname"] for node in places]
    say(f"preparing {len(places)} machine{'s' * (len(places) != 1)}: {', '.join(names)}")
    known = _known(plan)
    (first,) = ray.get([_asked(plan, places[0], known)])
    others = ray.get([_asked(plan, node, first.teachers) for node in places[1:]])
    for name, found in zip(names[1:], others, strict=True):
        if found.data != first.data:
            raise UsageError(f"--data-dir: machine {name} has other data than {names[0]}.")
        for teacher, made in found.teachers.items():
            if made.digest != first.teachers[teacher].digest:
                raise UsageError(f"--teacher-dir: machine {name} has another teacher {teacher} than {names[0]}.")
    return first


def _share(plan: Plan) -> dict[str, float]:
    return resources.bundles(plan.request)[0]


def _asked(plan: Plan, node: Mapping[str, Any], known: Mapping[str, Made]) -> Any:
    share, there = _share(plan), NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], scheduling_strategy=there)(prepare)
    return task.remote(plan.setting.name, plan.teachers(), plan.request.device, plan.folders, dict(known))


def _known(plan: Plan) -> dict[str, Made]:
    """Trained teachers that the driver's machine has."""
    ours = [name for name in plan.teachers() if trained_here(plan.setting, name)]
    files = {name: teachers.teacher_file(plan.setting, name, plan.folders) for name in ours}
    return {name: read(file, weights=True) for name, file in files.items() if file.valid()}


def prepare(name: str, names: list[str], device: str, folders: Folders, known: Mapping[str, Made]) -> Found:
    """On one machine: take over the teachers that are `known`, make or measure what is missing."""
    setting, found = workload(name), dict[str, Made]()
    for teacher in names:
        ours = trained_here(setting, teacher)
        if ours and teacher in known:
            take_over(teachers.teacher_file(setting, teacher, folders), known[teacher])
        file = ensure_teacher(setting, teacher, device, lambda line: None, folders)
        found[teacher] = read(file, weights=ours)
    return Found(data.facts(setting.dataset, setting.split, folders.data), found)
