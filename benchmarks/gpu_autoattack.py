"""`autoattack` of benchmarks/gpu.py: the standard AutoAttack, strict fp32 and TF32, projected to 10,000 images."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from absld_search.core import models
from absld_search.core.methods.absld import ABSLD
from absld_search.core.trainer import Options, Schedule, Trainer
from benchmarks.gpu_setting import LIMIT, Setting, images_of, tf32


def autoattack(setting: Setting) -> dict[str, Any]:
    """Minutes of the standard AutoAttack, projected to 10,000 images of which half stand.

    Images that stand pay for nearly all of it, so the projection goes by the seconds for each that stood. A network
    that has learned nothing has none: a student is trained for two epochs first.
    """
    split = images_of(setting, setting.size.images)
    student = models.build(setting.size.students[0], 10, 3, 0).to(setting.device)
    schedule = Schedule(2, setting.size.batch, 0.1, 0.9, 2e-4, (), 0.1)
    method = ABSLD(label_source="label_smoothing", num_steps=2)  # needs no teacher
    Trainer(student, method, {}, split, schedule, 0, Options()).run(lambda end: None)
    rows = torch.arange(setting.size.attacked, device=setting.device)
    x, y = split.at(rows)[:2]
    left = max(0.0, LIMIT - (time.monotonic() - setting.began))
    found: dict[str, Any] = {}
    for name, allowed, kept in (("TF32", True, left / 2), ("fp32", False, 0.0)):
        with tf32(allowed):
            found[name] = attacked(student.eval(), x, y, setting, kept)
        print("AutoAttack {name}: {images} images, {robust:.1%} stand, {seconds:.0f} s; 10,000 of which half stand: "
              "{minutes} minutes".format_map({"name": name, "minutes": _minutes(found[name]), **found[name]}),
              flush=True)  # fmt: skip
        setting.keep("autoattack", found)
    return found


def _minutes(found: dict[str, Any]) -> str:
    return "unknown" if found["projected_minutes"] is None else f"{found['projected_minutes']:.1f}"


def attacked(student: nn.Module, x: Tensor, y: Tensor, setting: Setting, kept: float) -> dict[str, Any]:
    """Time, and share of images that stand at 8/255, of as many as leave `kept` seconds for what follows."""
    right, slowest, began = 0, 0.0, setting.clock()
    done = 0
    for images, labels in zip(x.split(setting.size.chunk), y.split(setting.size.chunk), strict=True):
        if done and setting.late(kept + slowest):
            break
        start = setting.clock()
        right += standing(student, images, labels, setting)
        slowest, done = max(slowest, setting.clock() - start), done + len(labels)
    seconds = setting.clock() - began
    minutes = seconds / right * 5_000 / 60 if right else None
    return {"images": done, "seconds": seconds, "robust": right / done, "projected_minutes": minutes}


def standing(student: nn.Module, x: Tensor, y: Tensor, setting: Setting) -> int:
    """How many images stay right under AutoAttack."""
    from pyautoattack import AutoAttack

    version = {"version": "custom", "attacks": ["apgd-ce"]} if setting.toy else {"version": "standard"}
    found = AutoAttack(student, norm="Linf", eps=8 / 255, device=setting.device, seed=0, **version)
    x_adv, _ = found.run_standard_evaluation(x, y, batch_size=len(y))
    with torch.no_grad():
        return int((student(x_adv).argmax(1) == y).sum())
