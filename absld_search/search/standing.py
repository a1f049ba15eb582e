"""How a study stands: one summary of its ledger, for the display of the driver and for `status` in another terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from absld_search.search import constraints, fronts
from absld_search.search.halving import RUNG
from absld_search.search.ledger import COMPLETE, FAILED, INFEASIBLE, RUNNING, Row

BEST = "worst_class_robust_accuracy"
ENDED = (COMPLETE, FAILED)
FEW = 5  # seconds of which no better is known: what a mean says of the last training's end


@dataclass(frozen=True)
class Standing:
    """Counts of trainings by stage, of trials, and the best there is so far. Accuracies are fractions, on val."""

    done: int  # trainings that have ended
    total: int  # trainings that the plan comes to, as far as that is known
    stages: dict[str, tuple[int, int]]  # search, confirm, ... -> trainings ended, and in all
    rungs: dict[int, tuple[int, int]]  # epochs -> trainings of that length ended, and queued; {} without rungs
    trials: dict[str, int]  # state -> trials
    front: int  # trials on the joint front of all arms
    best: float | None  # the highest worst class of a whole training
    left: float | None  # seconds, by the mean of those that have ended in each stage; None before the first
    running: dict[str, tuple[int, int]] = field(default_factory=dict)  # trial and seed -> epoch, of how many
    interrupted: dict[str, tuple[int, int]] = field(default_factory=dict)  # the same, where the driver has died since
    failed: dict[str, str] = field(default_factory=dict)  # trial and seed -> reason
    broken: dict[str, tuple[int, float | None]] = field(default_factory=dict)  # constraint -> trials, and the nearest


def standing(
    trials: Sequence[Row],
    trainings: Sequence[Row],
    objectives: Mapping[str, str],
    planned: Mapping[str, int],
    epochs: Mapping[str, int],
    *,
    driven: bool = True,
    slots: int = 1,
    took: Mapping[str, float] | None = None,
) -> Standing:
    """The summary. `planned`: stage -> trainings that are to come, queued or not; `epochs`: training -> the last epoch
    it has ended, for those that run; `driven`: whether a driver lives, without which nothing runs; `slots`: how many
    trainings run at a time, at least, but for the moment between two; `took`: training -> the seconds that it took
    elsewhere, for those that were taken over."""
    stages = _stages(trainings, planned)
    names = _names(trials, trainings)
    running = [row for row in trainings if row["state"] == RUNNING]
    under_way = {names[row["training"]]: (epochs.get(row["training"], 0), _length(row)) for row in running}
    shares = [(row["stage"], epochs.get(row["training"], 0) / _length(row)) for row in running]
    return Standing(
        done=sum(ended for ended, _ in stages.values()),
        total=sum(whole for _, whole in stages.values()),
        stages=stages,
        rungs=_rungs(trainings),
        trials=dict(Counter(row["state"] for row in trials)),
        front=_front(trials, objectives),
        best=_best(trainings),
        left=_left(_seconds(trainings, took or {}), stages, shares, slots),
        running=under_way if driven else {},
        interrupted={} if driven else under_way,
        failed={names[row["training"]]: row["reason"] for row in trainings if row["state"] == FAILED},
        broken=constraints.shortfalls(row["reason"] or "" for row in trials if row["state"] == INFEASIBLE),
    )


def lines(found: Standing, gpus: Sequence[str] = ()) -> list[str]:
    """The summary in plain lines."""
    shown = [f"{name:<8} {ended}/{whole}" for name, (ended, whole) in found.stages.items()]
    rungs = ", ".join(f"{epochs} epochs {ended}/{whole}" for epochs, (ended, whole) in found.rungs.items())
    return [
        headline(found),
        *(f"  {line}" for line in shown),
        *([f"  rungs    {rungs}"] if rungs else []),
        f"  front    {front(found)}",
        *(f"  infeasible  {_broken(found, said)}" for said in found.broken),
        *(f"  {line}" for line in gpus),
        *(f"  running  {name}  {progress(*at)}" for name, at in found.running.items()),
        *(f"  interrupted  {name}  {progress(*at)}" for name, at in found.interrupted.items()),
        *(f"  failed   {name}: {reason}" for name, reason in found.failed.items()),
    ]


def headline(found: Standing) -> str:
    """`12/57 trainings, 2 running, about 3 min left, best worst class 0.564 (val)`."""
    cut = len(found.interrupted)
    under_way = f"{cut} interrupted" if cut else f"{len(found.running)} running"
    failed = [f"{len(found.failed)} failed"] if found.failed else []
    best = [f"best worst class {found.best:.3f} (val)"] if found.best is not None else []
    return ", ".join([f"{found.done}/{found.total} trainings", under_way, *failed, _time(found), *best])


def front(found: Standing) -> str:
    """`4 of 12 complete trials`."""
    return f"{found.front} of {found.trials.get(COMPLETE, 0)} complete trials"


def _broken(found: Standing, constraint: str) -> str:
    """`3 of 12 trials break clean_accuracy >= 0.8 (val), the nearest with 0.7812`."""
    count, nearest = found.broken[constraint]
    reached = "" if nearest is None else f", the nearest with {nearest:.4g}"
    return f"{count} of {sum(found.trials.values())} trials break {constraint} (val){reached}"


def progress(epoch: int, of: int) -> str:
    """`epoch 12/30`, or that none is known to have ended: it starts, or its log is on another machine."""
    return f"epoch {epoch}/{of}" if epoch else f"of {of} epochs, none heard of yet"


def _time(found: Standing) -> str:
    if found.done == found.total:
        return "nothing left"
    if found.left is None:
        return "time left unknown"
    if found.left < FEW:
        return "a few seconds left"
    return f"about {found.left / 60:.0f} min left" if found.left >= 90 else f"about {found.left:.0f} s left"


def _stages(trainings: Sequence[Row], planned: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    queued = Counter(row["stage"] for row in trainings)
    ended = Counter(row["stage"] for row in trainings if row["state"] in ENDED)
    return {stage: (ended[stage], max(queued[stage], planned.get(stage, 0))) for stage in {**planned, **queued}}


def _rungs(trainings: Sequence[Row]) -> dict[int, tuple[int, int]]:
    of_rungs = [row for row in trainings if row["stage"] == RUNG]
    queued = Counter(_length(row) for row in of_rungs)
    ended = Counter(_length(row) for row in of_rungs if row["state"] in ENDED)
    return {epochs: (ended[epochs], queued[epochs]) for epochs in sorted(queued)}


def _length(row: Row) -> int:
    return int(row["job"]["schedule"]["epochs"])


def _names(trials: Sequence[Row], trainings: Sequence[Row]) -> dict[str, str]:
    """Training -> its trial and seed; a configuration that several arms share goes by the first."""
    of: dict[str, str] = {}
    for trial in trials:
        of.setdefault(trial["config"], trial["trial"])
    return {row["training"]: f"{of.get(row['config'], row['config'])} seed {row['seed']}" for row in trainings}


def _front(trials: Sequence[Row], objectives: Mapping[str, str]) -> int:
    values = [[row["objectives"][name] for name in objectives] for row in trials if row["state"] == COMPLETE]
    return int(fronts.non_dominated(values, list(objectives.values())).sum()) if values and objectives else 0


def _best(trainings: Sequence[Row]) -> float | None:
    whole = [row["metrics"] or {} for row in trainings if row["state"] == COMPLETE and row["stage"] != RUNG]
    return max((metrics[BEST] for metrics in whole if BEST in metrics), default=None)


def _seconds(trainings: Sequence[Row], took: Mapping[str, float]) -> dict[str, list[float]]:
    """Stage -> what its trainings took."""
    known: dict[str, list[float]] = {}
    for row in trainings:
        if row["state"] == COMPLETE and (seconds := took.get(row["training"], row["seconds"])):
            known.setdefault(row["stage"], []).append(seconds)
    return known


def _left(
    known: Mapping[str, Sequence[float]],
    stages: Mapping[str, tuple[int, int]],
    shares: Sequence[tuple[str, float]],
    slots: int,
) -> float | None:
    """Seconds: what is left of each stage, at the mean of its own trainings, shared by those that run at a time.

    `shares`: of each training that runs its stage and how much of it is done.
    """
    if not known:
        return None
    every = [seconds for of_stage in known.values() for seconds in of_stage]
    means = {stage: sum(known.get(stage, every)) / len(known.get(stage, every)) for stage in stages}
    work = sum((whole - ended) * means[stage] for stage, (ended, whole) in stages.items())
    return max(0.0, work - sum(share * means[stage] for stage, share in shares)) / max(1, slots, len(shares))
