"""Every check before anything is created: what would fail in an hour is refused in a second."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from absld_search.core import datasets, teachers
from absld_search.core.files import cache_folder
from absld_search.search import ledger as ledgers
from absld_search.search.plan import Plan
from absld_search.words import UsageError, masked


def check(plan: Plan) -> None:
    """Raises: UsageError for the first thing that stands in the way. Creates nothing."""
    _check_numbers(plan)
    _check_device(plan)
    _check_writable("--out", plan.folder)
    _check_writable("ABSLD_CACHE_DIR", cache_folder())
    _check_data(plan)
    _check_storage(plan)


def download(plan: Plan) -> None:
    """Fetch the workload's data set, where it is not there yet. Raises: UsageError."""
    if plan.setting.dataset in datasets.IMAGE_SETS:
        datasets.download(plan.setting.dataset, plan.request.data_dir)


def _check_numbers(plan: Plan) -> None:
    request = plan.request
    counts = {"--trials": request.trials, "--seeds": request.seeds, "--max-concurrent": request.max_concurrent}
    for flag, value in {**counts, "--search-seeds": request.search_seeds}.items():
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, not {value}.")
    for flag, hours in {"--time-budget": request.time_budget, "--gpu-hours": request.gpu_hours}.items():
        if hours is not None and not 0 < hours < float("inf"):
            raise UsageError(f"{flag} must be a number of hours above 0, not {hours:g}.")
    if request.gpu_hours is not None and request.gpus_per_trial <= 0:
        raise UsageError("--gpu-hours needs --gpus-per-trial: without a GPU, --time-budget counts hours of training.")
    if request.cpus_per_trial <= 0:
        raise UsageError(f"--cpus-per-trial must be greater than 0, not {request.cpus_per_trial:g}.")
    if request.gpus_per_trial < 0:
        raise UsageError(f"--gpus-per-trial must be at least 0, not {request.gpus_per_trial:g}.")


def _check_device(plan: Plan) -> None:
    """Ray waits for ever for what a machine does not have; a cluster's machines are asked once it is joined."""
    request = plan.request
    if request.address:
        return _check_address(request.address)
    cores = os.cpu_count() or 1
    if request.cpus_per_trial > cores:
        raise UsageError(f"--cpus-per-trial {request.cpus_per_trial:g}: this machine has {cores} CPU cores.")
    if request.gpus_per_trial > 0 or request.device == "cuda":
        seen = _gpus()
        if seen < max(request.gpus_per_trial, 1 if request.device == "cuda" else 0):
            flag = f"--gpus-per-trial {request.gpus_per_trial:g}" if request.gpus_per_trial > 0 else "--device cuda"
            raise UsageError(f"{flag}: this machine has {seen} GPUs that torch can use.")


def _check_address(address: str) -> None:
    """Ray tries for minutes where nothing answers."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like: Ray knows where to look, and is quick about it
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UsageError(f"--address {address}: nothing answers there ({error}).") from None


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _check_writable(flag: str, folder: Path) -> None:
    """The nearest existing parent must be a folder we may write in: tried, since root is told that it may anywhere."""
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UsageError(f"{flag}: nothing can be written in {place} ({error.strerror}).") from None


def _check_data(plan: Plan) -> None:
    """The data set and every teacher's file are there and what they should be."""
    if plan.setting.dataset in datasets.IMAGE_SETS:
        datasets.require(plan.setting.dataset, plan.request.data_dir)
    for name in plan.teachers():
        teachers.require(plan.setting, name, plan.folders)


def _check_storage(plan: Plan) -> None:
    """The database can be reached, and what is in it under this name is the same study."""
    url = plan.request.storage
    try:
        made = sa.make_url(url)
        if made.drivername.startswith("sqlite"):
            file = Path(made.database or "")
            if not file.exists():
                return _check_writable("--storage", file.parent)
        engine = ledgers.connect(url)
        with engine.connect():
            there = sa.inspect(engine).has_table("absld_facts")
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        reason = masked(str(error).splitlines()[0])
        raise UsageError(f"--storage: the database cannot be opened: {reason}") from None
    if there:
        check_fingerprints(plan, engine)


def check_fingerprints(plan: Plan, engine: sa.Engine) -> None:
    """Raises: UsageError naming the first field that differs from what this study was made with."""
    with engine.connect() as connection:
        stored = ledgers.read_facts(connection, plan.request.study, "fingerprint:")
    arms = {arm.name: arm for arm in plan.arms}
    for name, fingerprint in stored.items():
        if name not in arms:
            raise UsageError(
                f"study {plan.request.study!r} has an arm {name!r} that the space has no more. Arms can be added, not "
                "removed or renamed: give another name with --study."
            )
        _compare(plan, name, fingerprint, ledgers.as_json(plan.fingerprint(arms[name])))


def _compare(plan: Plan, arm: str, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    for name in sorted({*stored, *asked}):
        if stored.get(name) != asked.get(name):
            raise UsageError(
                f"study {plan.request.study!r} was made with {name} = {stored.get(name)!r} in arm {arm!r}, "
                f"now it is {asked.get(name)!r}. Trials, seeds and arms can be added; for anything else give "
                "another name with --study."
            )
