"""Every check before anything is created: what would fail in an hour is refused in a second."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from absld_search.core import data, datasets, models, teachers
from absld_search.core.files import cache_folder, existing, require_writable
from absld_search.core.store import Store
from absld_search.search import answering, costs, database, resources
from absld_search.search import ledger as ledgers
from absld_search.search.plan import Arm, Plan, Request
from absld_search.words import Away, UsageError, masked, unknown

VERDICTS = 2_000_000  # bytes of one training's tables: tens of thousands of images, compressed, and its log
ROOM = 100_000_000  # bytes for the databases, MLflow's files, the report, and Ray's own


def check(plan: Plan, dry: bool = False) -> None:
    """Raises: UsageError for the first thing in the way; Away. Creates nothing, but for the decoded data in the
    cache, where a study that begins will look for them; `dry`: not these (labels and first images are checked where
    they lie), and no machine either."""
    _check_numbers(plan)
    _check_processes(plan)
    _check_device(plan, dry)
    require_writable("--out", plan.folder)
    _check_own(plan)
    require_writable("ABSLD_CACHE_DIR", cache_folder())
    _check_data(plan)
    check_storage(plan)
    _check_tracking(plan.request.tracking_uri)
    check_space(plan)
    if plan.request.store:
        _check_store(plan)
    _check_images(plan, dry)


def _check_store(plan: Plan) -> None:
    store = Store(plan.request.store)
    try:
        store.check()
    except UsageError as error:
        if _begun(plan):
            raise Away(str(error).rstrip(".")) from None
        raise


def _begun(plan: Plan) -> bool:
    return (plan.folder / "study.json").is_file()


def download(plan: Plan) -> None:
    """Fetch the workload's data set, where it is not there yet. Raises: UsageError."""
    if plan.setting.dataset in datasets.IMAGE_SETS:
        datasets.download(plan.setting.dataset, plan.request.data_dir)


def _check_numbers(plan: Plan) -> None:
    request = plan.request
    counts = {"--trials": request.trials, "--seeds": request.seeds, "--epochs-budget": request.epochs_budget,
              "--max-concurrent": request.max_concurrent,
              "--processes-per-trial": request.processes_per_trial}  # fmt: skip
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
    gpus = request.gpus_per_trial
    if gpus < 0 or gpus > 1 and gpus % 1:
        raise UsageError(f"--gpus-per-trial must be at least 0, and whole where it is above 1, not {gpus:g}.")
    if not 0 <= request.wait_for_nodes < float("inf"):
        raise UsageError(f"--wait-for-nodes must be seconds, at least 0, not {request.wait_for_nodes:g}.")


def _check_processes(plan: Plan) -> None:
    """A training in several processes gives the numbers of one; what could not is refused."""
    count, gpus = resources.processes(plan.request), plan.request.gpus_per_trial
    if max(count, gpus) > 1 and gpus not in (0, count):
        raise UsageError(f"--processes-per-trial {count}: with --gpus-per-trial {gpus:g} every process needs one GPU.")
    if count == 1:
        return
    if plan.request.store:
        raise UsageError("--store: the processes of one training meet in --out, which all machines must then share.")
    from absld_search.core import distributed

    for arm in plan.arms:
        if plan.rungs(arm) and plan.config(arm.words, seed=0).schedule.kind == "wsd":
            raise UsageError("--processes-per-trial: rungs of schedule=wsd train in one process; use schedule=step.")
    for method, options in plan.methods():
        distributed.require(method, count)
        if options.compile:
            raise UsageError(f"--set compile=True: not with {count} processes for each training.")
        if options.graphs:
            raise UsageError(f"--set graphs=True: not with {count} processes for each training.")


def _check_device(plan: Plan, dry: bool) -> None:
    """Ray waits for ever for what a machine does not have; a cluster's machines are asked once it is joined."""
    request = plan.request
    if request.address not in (None, "", "local"):
        return _check_cluster(request, dry)
    cores = resources.cores()
    if request.cpus_per_trial > cores:
        raise UsageError(f"--cpus-per-trial {request.cpus_per_trial:g}: this machine has {cores} CPU cores.")
    if request.gpus_per_trial > 0 or request.device == "cuda":
        seen = _gpus()
        if seen < max(request.gpus_per_trial, 1 if request.device == "cuda" else 0):
            flag = f"--gpus-per-trial {request.gpus_per_trial:g}" if request.gpus_per_trial > 0 else "--device cuda"
            raise UsageError(f"{flag}: this machine has {seen} GPUs that torch can use.")


def _check_cluster(request: Request, dry: bool) -> None:
    assert request.address
    answering.require(request.address)
    if dry and request.wait_for_nodes:
        return  # what it will have is known once it is asked to grow
    from absld_search.search import cluster  # only now: Ray takes seconds to import, and most refusals don't need it

    cluster.look(request)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _check_own(plan: Plan) -> None:
    """A study's folder lies where it seems to lie, and holds what its user put there."""
    folder = plan.folder
    if folder.is_symlink():
        raise UsageError(f"--study: {folder} is a link; a study's folder lies in --out itself.")
    if not folder.exists():
        return
    found = folder.stat()
    if os.geteuid() != 0 and found.st_uid != os.geteuid():
        raise UsageError(f"--study: {folder} belongs to user {found.st_uid}; give another name with --study or --out.")
    if found.st_mode & 0o022:
        raise UsageError(
            f"--study: others may write into {folder}, so what is in it may not be yours. Look at it, then "
            f"`chmod 700 {folder}`."
        )


def _check_data(plan: Plan) -> None:
    """The data set and every teacher's file are there and what they should be; else it is said of all at once."""
    missing = []
    if plan.setting.dataset in datasets.IMAGE_SETS:
        missing += _refused(datasets.require, plan.setting.dataset, plan.request.data_dir)
    for name in plan.teachers():
        missing += _refused(teachers.require, plan.setting, name, plan.folders)
    if missing:
        raise UsageError("\n".join(missing))


def _refused(check: Callable[..., Any], *asked: Any) -> list[str]:
    try:
        check(*asked)
    except UsageError as error:
        return [str(error)]
    return []


def _check_images(plan: Plan, dry: bool) -> None:
    """A study that begins has images of every class in every split: they are decoded for it, before it has a folder.

    `dry`: labels and first images alone are read, and nothing is kept. Raises: UsageError naming split and class, or
    file and image.
    """
    if not _begun(plan):
        read = data.look if dry else data.facts
        read(plan.setting.dataset, plan.setting.split, plan.folders.data)


def check_space(plan: Plan) -> None:
    """What the study will come to fits on the disk. Raises: UsageError with both numbers."""
    place = existing(plan.folder)
    free, needed = shutil.disk_usage(place).free, bytes_needed(plan)
    if free < needed:
        raise UsageError(f"--out: {place} has {free / 1e9:.1f} GB free, this study needs about {needed / 1e9:.1f} GB.")


def bytes_needed(plan: Plan) -> int:
    """An estimate, on the safe side: a student and a verdict per image for each training that is left, three states
    of student and optimizer (two kept, one being written) for each that runs, and what everything else takes."""
    seeds = len(plan.confirm_seeds)
    trainings = sum(costs.expected(plan, arm) for arm in plan.arms) * len(plan.search_seeds) + len(plan.arms) * seeds
    left = max(0, trainings - len(list(plan.folder.glob("trainings/*/result.json"))))
    at_once = plan.request.max_concurrent or int(resources.cores() / plan.request.cpus_per_trial) or 1
    state = 4 * _parameters(plan)  # bytes of the weights; the optimizer's momentum and an average are as large each
    return left * (state + VERDICTS) + min(left, at_once) * 3 * 3 * state + ROOM


def _parameters(plan: Plan) -> int:
    import torch

    classes, channels, size = data.shape(plan.setting.dataset)
    with torch.device("meta"):  # shapes only: nothing is drawn
        student = models.build(plan.setting.student, classes, channels, seed=0, size=size)
    return sum(parameter.numel() for parameter in student.parameters())


def check_storage(plan: Plan) -> None:
    """The database can be reached and is whole, and what is in it under this name is the same study.

    Raises: UsageError; Differs where it is another study; Away.
    """
    url = plan.request.storage
    try:
        made = sa.make_url(url)
        if made.drivername.startswith("sqlite"):
            file = Path(made.database or "")
            if not file.exists():
                _check_unknown(plan)
                _check_local(file.parent)
                return require_writable("--storage", file.parent)
            _check_local(file.parent)
        engine = ledgers.connect(url)
        with engine.connect() as connection:
            _check_whole(plan, connection)
            there = sa.inspect(engine).has_table("absld_facts")
    except sa.exc.NoSuchModuleError:
        raise unknown("--storage: the kind of database", made.drivername, ("sqlite", "postgresql+psycopg")) from None
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        reason = masked(str(error).splitlines()[0])
        if isinstance(error, sa.exc.OperationalError) and not url.startswith("sqlite") and _begun(plan):
            raise Away(f"--storage: the database cannot be reached: {reason}") from None
        raise UsageError(f"--storage: the database cannot be opened: {reason}") from None
    if not there:
        return _check_unknown(plan)
    with engine.connect() as connection:
        version = ledgers.read_fact(connection, plan.request.study, "schema_version")
    ledgers.check_version(version)
    if version is None:
        _check_unknown(plan)
    check_fingerprints(plan, engine)


def _check_tracking(uri: str) -> None:
    """MLflow's own SQLite, by default beside the studies in --out, is no better off there."""
    if uri.startswith("sqlite"):
        file = Path(sa.make_url(uri).database or "")
        _check_local(file.parent, "--tracking-uri", "an MLflow server", file.name)


def _check_local(
    folder: Path, flag: str = "--storage", server: str = "a PostgreSQL database", name: str = "study.db"
) -> None:
    """SQLite's locks are promises of the file system, which those of a network break or do not make."""
    if kind := database.network_file_system(folder):
        raise UsageError(
            f"{flag}: {folder} lies on {kind}, a network file system, where SQLite's locks cannot be relied on and "
            f"a database is damaged when two machines write. Name {server} with {flag}, or a file on "
            f"this machine's own disk: {flag} sqlite:////PATH/{name}."
        )


def _check_whole(plan: Plan, connection: sa.Connection) -> None:
    """A database that was cut off would lose trials, or, cut at 0, begin a new study in silence."""
    if connection.dialect.name == "sqlite":
        try:
            verdict = str(connection.execute(sa.text("PRAGMA quick_check(1)")).scalar())
        except sa.exc.DatabaseError as error:
            if isinstance(error, sa.exc.OperationalError):
                raise  # locked, or not to be opened: says nothing of what is in it
            verdict = str(error.orig)
        if verdict != "ok":
            raise UsageError(
                f"--storage: the database of study {plan.request.study!r} is damaged ({verdict.splitlines()[0]}). Put "
                "a copy of it back, or begin anew with another name after --study."
            )


def _check_unknown(plan: Plan) -> None:
    """The database does not know the study: then its folder must not know trainings."""
    if any(plan.folder.glob("trainings/*/*")):
        raise UsageError(
            f"--storage: the database knows nothing of study {plan.request.study!r}, but {plan.folder} holds its "
            "trainings. Put the database back, or give another name with --study."
        )


class Differs(UsageError):
    """Under this name there is another study."""


def check_fingerprints(plan: Plan, engine: sa.Engine) -> None:
    """Raises: Differs, naming the first field that differs from what this study was made with."""
    with engine.connect() as connection:
        stored = ledgers.read_facts(connection, plan.request.study, "fingerprint:")
    arms = {arm.name: arm for arm in plan.arms}
    for name, fingerprint in stored.items():
        if name not in arms:
            raise Differs(
                f"study {plan.request.study!r} has an arm {name!r} that {_without(plan)}. Arms can be added, not "
                "removed or renamed: give another name with "
                "--study, or fork it with --fork-study."
            )
        _compare(plan, name, fingerprint, ledgers.as_json(plan.fingerprint(arms[name])))
    for arm in plan.arms:
        with engine.connect() as connection:
            _check_rungs(plan, arm, ledgers.read_facts(connection, plan.request.study, f"rung:{arm.name}:"))


def _without(plan: Plan) -> str:
    return "--arms leaves out" if plan.request.arms else "the space has no more"


def _check_rungs(plan: Plan, arm: Arm, known: dict[str, int]) -> None:
    """A trial that stopped on a rung is promoted from there, or never: the rung must stay."""
    rungs = plan.rungs(arm)
    if plan.stops(arm) and (gone := sorted(set(known.values()) - set(rungs))):
        raise Differs(
            f"--grace, --eta: trials of study {plan.request.study!r} may have stopped after "
            f"{' or '.join(map(str, gone))} epochs in arm {arm.name!r}, where the rungs would now be "
            f"{', '.join(map(str, rungs))} epochs. Give those that it began with, or --stopping none, which trains "
            "every trial to its end; or give another name with --study, or fork it with --fork-study."
        )


def _field(name: str) -> str:
    """A fingerprint's key as a person knows it."""
    kind, _, parameter = name.partition(".")
    return {"words": f"{parameter} =", "tuned": f"{parameter} searched in"}.get(kind, f"{name} =")


def _worth(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _compare(plan: Plan, arm: str, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    for name in sorted({*stored, *asked}):
        if stored.get(name) != asked.get(name):
            raise Differs(
                f"study {plan.request.study!r} was made with {_field(name)} {_worth(stored.get(name))} in arm {arm!r}, "
                f"now it is {_worth(asked.get(name))}. Trials, seeds and arms can be added; for anything else give "
                "another name with --study, or fork it with --fork-study."
            )
