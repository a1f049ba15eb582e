"""Budgets at which configurations are compared before one is given all its epochs, and how to train to them.

The kind of a configuration's schedule says which way its rungs go:

step    compressed: at a budget of e epochs, an ordinary training of e epochs, its drops at the same fractions.
        Every rung starts anew, so a trial that climbs them pays the sum of the budgets.
wsd     trunk: the whole training, stopped where the branch of e epochs leaves it; from there a copy decays to
        epoch e and is evaluated. Promotion trains the trunk on from its own checkpoint, so a trial pays the whole
        training and the short branches.

Neither evaluates at a high learning rate, where configurations rank otherwise than at their end. What differs:

* Class temperatures move by up to `temperature_lr * lr_scale` an epoch. At a compressed rung they have travelled
  e / epochs of their way; a branch takes over those of the whole training at that epoch, and hardly moves them while
  it decays, as the end of the whole training does.
* What a method does by shares of the epochs (`init_share`, warm-ups, `averaging_start`) shrinks with a compressed
  rung and so takes part in it. A trunk counts shares of the whole training: at a low rung the later phase has not
  begun, and `check` refuses a rung at which the method itself has not (`init_from`).
* An average of weights remembers 1 / (1 - averaging_decay) epochs at every budget: at low compressed rungs that
  reaches back to its first. In a branch it holds what the trunk put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from absld_search.core import checkpoints, records, results
from absld_search.core.config import TrialConfig
from absld_search.core.distributed import Group
from absld_search.core.trial import Report, Run, Say, log, run_trial
from absld_search.words import UsageError


def rungs(epochs: int, eta: float = 3, grace: int = 1) -> tuple[int, ...]:
    """Budgets in epochs, rising, each about `eta` times the one before; the first at least `grace`, the last `epochs`.

    Raises: ValueError unless eta > 1 and 1 <= grace <= epochs.
    """
    if eta <= 1 or not 1 <= grace <= epochs:
        raise ValueError(f"rungs need eta > 1 and 1 <= grace <= epochs, not {eta=}, {grace=}, {epochs=}")
    found = [epochs]
    while (budget := round(epochs / eta ** len(found))) >= grace and budget < found[-1]:
        found.append(budget)
    return tuple(reversed(found))


def at(config: TrialConfig, budget: int) -> TrialConfig:
    """The training of `config` that ends after `budget` epochs; the whole one is `config` itself."""
    whole = config.schedule.epochs
    if budget == whole:
        return config
    trunk = whole if config.schedule.kind == "wsd" else 0
    return replace(config, schedule=replace(config.schedule, epochs=budget, trunk_epochs=trunk), test=False)


def whole_of(config: TrialConfig) -> TrialConfig:
    """The training that `config` is a rung of, as far as it can be told: a branch's trunk; else `config` itself.

    `at(whole_of(config), config.schedule.epochs)` is `config` again.
    """
    trunk = config.schedule.trunk_epochs
    if not trunk:
        return config
    return replace(config, schedule=replace(config.schedule, epochs=trunk, trunk_epochs=0))


def check(config: TrialConfig, budgets: Sequence[int]) -> None:
    """Raises: UsageError where a rung would compare configurations by what they do not differ in yet."""
    for budget in budgets:
        short = at(config, budget)
        if short is not config and short.schedule.kind == "step" and min(short.schedule.drops()) >= budget:
            raise UsageError(
                f"--grace: a rung of {budget} epoch{'s' * (budget > 1)} ends before its learning rate drops, and would "
                "rank configurations at a high one; use --grace 2 or more, or schedule=wsd."
            )
        warm_up = short.warm_up()
        if warm_up and warm_up.epochs >= budget:
            waits = f"{config.method} begins after {warm_up.epochs} epochs of {config.options.init_from}"
            raise UsageError(f"init_share: {waits}, so a rung at {budget} never sees it; use schedule=step.")


def paid(config: TrialConfig, budgets: Sequence[int]) -> list[int]:
    """Epochs that each of the rising `budgets` costs a trial that has climbed the ones before."""
    if config.schedule.kind != "wsd":
        return list(budgets)
    leaves = [at(config, budget).schedule.branch_at for budget in budgets]
    return [budget - before for budget, before in zip(budgets, [0, *leaves], strict=False)]


def run_rung(
    config: TrialConfig,
    budget: int,
    trainings: Path,
    report: Report,
    checkpoint_seconds: float = 4.0,
    say: Say = log.warning,
    group: Group | None = None,
) -> dict[str, float]:
    """The metrics of `config` at `budget`, as `run_trial` gives them; resumable and complete as its are.

    Every training lies in the folder `trainings` under its key, a trunk under that of `config`. The numbers are
    those of `run_trial` on `at(config, budget)`, to the bit: the trunk only spares the epochs that it has behind it.
    `report` sees an epoch once from the trunk and, past the point where it leaves, once from each branch.
    With a `group` this is the process of rank 0. Raises: UsageError for a branch with a group: a trunk has one process.
    """
    asked = at(config, budget)
    folder, leaves = trainings / asked.key, asked.schedule.branch_at
    branches = config.schedule.kind == "wsd" and budget < config.schedule.epochs and leaves > 0
    if branches and group is not None:
        raise UsageError("--processes-per-trial: a branch from a trunk is trained in one process; use schedule=step.")
    if branches and results.read_result(folder) is None:
        trunk = trainings / config.key
        _leave(trunk, _grown(config, leaves, trunk, report, checkpoint_seconds, say), leaves, folder)
    return run_trial(asked, folder, report, checkpoint_seconds, say, group)


def _grown(config: TrialConfig, epoch: int, folder: Path, report: Report, checkpoint_seconds: float, say: Say) -> Path:
    """The trunk's checkpoint after `epoch`, trained up to there if it is not."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"), torch.random.fork_rng():
        if there := checkpoints.kept(folder, epoch):
            return there
        torch.set_num_threads(1)
        run = Run(config, folder, report, checkpoint_seconds)
        checkpoints.go_on(run, folder, up_to=epoch, say=say)
        while run.trainer.epoch < epoch:
            run.on_epoch(run.trainer.run_epoch())
        return checkpoints.save(folder, epoch, run.state_dict(), keep=True)


def _leave(trunk: Path, kept: Path, epoch: int, folder: Path) -> None:
    """Give a branch that has not begun the trunk's checkpoint and its log up to there."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if checkpoints.newest(folder) is not None:
            return
        log = records.EpochLog(folder / "epochs.jsonl")
        for number, metrics in records.EpochLog(trunk / "epochs.jsonl").read().items():
            if number <= epoch:
                log.append(number, metrics)
        checkpoints.lend(kept, folder)
