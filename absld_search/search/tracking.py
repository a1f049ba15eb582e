"""The MLflow mirror of a study: one experiment = one study, one root run = one trial, one child run = one training.

MLflow shows what the ledger holds and decides nothing, so every call can be repeated, by this process or the next one
after a crash, and changes the store once. Only the driver writes. What MLflow refuses, or cannot do while it is away,
comes out as one of `MIRROR_ERRORS`.
"""

import logging
import math
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from absld_search.search import mlflow_view, notes, palette
from absld_search.search.mlflow_view import Shown
from absld_search.search.mlflow_view import link as link
from absld_search.search.mlflow_view import store_uri as store_uri
from absld_search.search.notes import NOTE

for _name in ("mlflow", "alembic"):  # creating a store takes them two screens of INFO
    logging.getLogger(_name).setLevel(logging.WARNING)

MIRROR_ERRORS = (MlflowException, SQLAlchemyError)  # for callers' `except`, none of which may import mlflow
METRICS_A_BATCH = 1000  # MLflow's limit for one request; params and tags it splits by itself, and keeps once
RUNS_A_PAGE = 1000
KEY, KIND, STUDY, OPENED = "absld.key", "absld.kind", "absld.study", "absld.opened"
IDENTITY, CONFIRMED = "absld.identity", "confirmed"
COLOR, PARENT = "mlflow.runColor", "mlflow.parentRunId"
ANSWER = "answer"
SAFE_KEY = re.compile(r"[\w .#/:-]{1,200}", re.ASCII)


@dataclass
class _Run:
    """What the store holds of one run.

    `points`: metric -> step -> value, as far as read; `unread`: metrics of which only the store knows the points;
    `latest`: what its table shows, as it was when the run was read.
    """

    id: str
    status: str
    tags: dict[str, str]
    params: set[str]
    unread: set[str]
    latest: dict[str, float]
    points: dict[str, dict[int, float]] = field(default_factory=dict)


class Mirror:
    """One study in one MLflow store. Call `open` first; keys are any text without quotes, unique in the study."""

    def __init__(self, tracking_uri: str, experiment: str, artifact_root: Path,
                 shown: Shown, identity: str = "", arms: Sequence[str] = (), question: str = "") -> None:  # fmt: skip
        """`shown`: what the views show; `identity` tells this study from another one of the same name in the same
        store; `arms` in their order, which gives their colours. Nothing is created here."""
        self.identity, self.arms, self.question = identity, list(arms), question
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.artifact_root = artifact_root
        self.shown = shown
        self._runs: dict[str, _Run] = {}
        self._all_trials_read = False
        self._stamps: dict[tuple[str, str, int, float], int] = {}  # when a point that was not yet acknowledged was sent

    def open(self) -> str:
        """The experiment's id. Creates store and experiment where missing, and saves the views.

        Raises: ValueError where the experiment was deleted in MLflow, for only a person can say what is wanted.
        """
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None and found.tags.get(IDENTITY, self.identity) != self.identity:
            self.experiment = f"{self.experiment}-{self.identity[:6]}"  # the name is another study's
            found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            self.experiment_id = self._create_experiment()
        elif found.lifecycle_stage == "deleted":
            raise ValueError(
                f"MLflow experiment '{self.experiment}' was deleted in {self.tracking_uri}. Bring it back with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or give the study another name."
            )
        else:
            self.experiment_id = found.experiment_id
        self._describe_experiment()
        return self.experiment_id

    def trial(self, key: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The id of the root run of one configuration: the one with this key, else a new one with these tags."""
        off = {"pareto": "false", "pareto_arm": "false", COLOR: self._colour(tags, strong=False)}
        run = self._find_or_create(key, name, {KIND: "trial", **off, **tags})
        missing = [Param(k, str(v)) for k, v in params.items() if k not in run.params]
        if missing:
            self._client.log_batch(run.id, params=missing)
            run.params.update(param.key for param in missing)
        return run.id

    def training(self, key: str, trial_key: str, name: str, tags: Mapping[str, str]) -> str:
        """The id of the run of one training, shown below its trial: the one with this key, else a new one."""
        own = {KIND: "training", PARENT: self._run(trial_key).id, COLOR: self._colour(tags, strong=True)}
        return self._find_or_create(key, name, {**own, **tags}).id

    def look_again(self) -> None:
        """Reads anew which runs there are, a thousand a request. Of two with one key the one that holds something
        stays: a request that was given up may be carried out later, by a server that hung."""
        self._runs.clear()
        for run in sorted(self._search(f"tags.`{KEY}` LIKE '%'"), key=_standing):
            if run.data.tags[KEY] in self._runs:
                self._client.delete_run(run.info.run_id)
            else:
                self._runs[run.data.tags[KEY]] = _known(run)
        self._all_trials_read = True

    def knows(self, key: str, metrics: Mapping[str, float], status: str) -> bool:
        """Whether the store had, when it was last read, this run's end with these values in its table."""
        run = self._runs.get(key)
        return run is not None and run.status == status and metrics.items() <= run.latest.items()

    def epochs(
        self, key: str, rows: Sequence[tuple[int, Mapping[str, float]]], times: Mapping[int, int] | None = None
    ) -> None:  # fmt: skip
        """Adds (epoch, metrics) rows to the curves of a trial or a training; points that stand there are kept.

        Values that are nan or infinite are left out, since MLflow stores infinity as a number. `times`: when an epoch
        was, in milliseconds since 1970; the same at every repetition, for MLflow drops a point that it has, time and
        all, and keeps one that differs in nothing but its time.
        """
        run = self._run(key)
        self._read_points(run, {name for _, values in rows for name in values})
        asked = {(name, step): float(value) for step, values in rows for name, value in values.items()}
        self._log(run, (
            (name, step, value) for (name, step), value in asked.items() if step not in run.points.get(name, ())
        ), times or {})  # fmt: skip
        self._release(run)

    def finish(self, key: str, metrics: Mapping[str, float], status: Literal["FINISHED", "FAILED"] = "FINISHED",
               reason: str = "", tags: Mapping[str, str] | None = None) -> None:  # fmt: skip
        """Closes a run with its summary: what the runs table shows, and `tags`. May be called again with better values.

        MLflow shows the value of the largest step, so a metric that has a curve gets its summary at the curve's end.
        """
        run = self._run(key)
        self._read_points(run, set(metrics))
        last = {name: max(run.points.get(name, {}), default=0) for name in metrics}
        self._log(run, (
            (name, last[name], float(value)) for name, value in metrics.items()
            if run.points.get(name, {}).get(last[name]) != value
        ), {})  # fmt: skip
        more = {**(tags or {}), **({"reason": reason} if reason or "reason" in run.tags else {})}
        colour = {COLOR: self._colour({**run.tags, **more}, strong=True)} if CONFIRMED in more else {}
        self._tag(run, {**more, **colour})
        if run.status != status:
            self._client.set_terminated(run.id, status)
            run.status = status
        self._release(run)

    def mark_fronts(self, joint: Collection[str], arm: Collection[str]) -> None:
        """Says of every trial whether its key is on the joint front and on its arm's; writes only what changed."""
        on_joint, on_arm = set(joint), set(arm)
        for key, run in self._trials():
            marks = {"pareto": _flag(key in on_joint), "pareto_arm": _flag(key in on_arm)}
            self._tag(run, {**marks, COLOR: self._colour(run.tags, strong=key in on_joint)})

    def _colour(self, tags: Mapping[str, str], strong: bool) -> str:
        """Of an arm, so that arms can be told apart; pale for trials neither on the joint front nor confirmed."""
        return palette.of_arm(self.arms, tags.get("arm", ""), strong or tags.get(CONFIRMED) == "true")

    def answer(self, files: Sequence[Path], metrics: Mapping[str, float], description: str,
               bundle: Sequence[Path] = ()) -> None:  # fmt: skip
        """Puts figures, tables and the report (files or folders) into the study's one run of kind `answer`.

        `description`: Markdown, which MLflow renders, HTML and all; so no tag is let through. `bundle`: what the answer
        can be recomputed from; it goes into a folder of that name.
        """
        run = self._find_or_create(ANSWER, ANSWER, {KIND: ANSWER})
        for file in files:
            self._client.log_artifact(run.id, str(file))
        for file in bundle:
            self._client.log_artifact(run.id, str(file), "bundle")
        text = notes.cut(description.replace("<", "&lt;"))
        self._tag(run, {NOTE: text})
        whole = notes.of_study(self.question, self.experiment_id, text)
        self._client.set_experiment_tag(self.experiment_id, NOTE, whole)
        self.finish(ANSWER, metrics)

    @cached_property
    def _client(self) -> MlflowClient:
        file = store_file(self.tracking_uri)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(self.tracking_uri)

    def _create_experiment(self) -> str:
        # A server keeps artifacts where its owner wants them; a plain database has no place of its own.
        place = None if is_server(self.tracking_uri) else self.artifact_root.resolve().as_uri()
        return self._client.create_experiment(self.experiment, artifact_location=place)

    def _describe_experiment(self) -> None:
        now = _now_ms()
        tags = {STUDY: self.experiment, OPENED: str(now), IDENTITY: self.identity}
        for view in mlflow_view.TITLES:
            tags[mlflow_view.tag(view)] = mlflow_view.saved_view(view, self.shown, now)
        if self.question and NOTE not in self._client.get_experiment(self.experiment_id).tags:
            tags[NOTE] = notes.of_study(self.question, self.experiment_id)
        for name, value in tags.items():
            self._client.set_experiment_tag(self.experiment_id, name, value)

    def _find_or_create(self, key: str, name: str, tags: Mapping[str, str]) -> _Run:
        run = self._find(key)
        if run is None:
            run = _known(self._client.create_run(self.experiment_id, run_name=name, tags={KEY: key, **tags}))
            self._runs[key] = run
        return run

    def _run(self, key: str) -> _Run:
        run = self._find(key)
        if run is None:
            raise KeyError(f"no run with key '{key}' in MLflow experiment '{self.experiment}'")
        return run

    def _find(self, key: str) -> _Run | None:
        """The run of this key. Asks the store, for an earlier process, or a request whose reply got lost, made some."""
        if not SAFE_KEY.fullmatch(key):  # it becomes part of a query
            raise ValueError(f"{key!r} is no key of a run")
        if key not in self._runs:
            for run in sorted(self._search(f"tags.`{KEY}` = '{key}'"), key=_standing)[:1]:
                self._runs[key] = _known(run)
        return self._runs.get(key)

    def _trials(self) -> list[tuple[str, _Run]]:
        if not self._all_trials_read:
            for run in self._search(f"tags.`{KIND}` = 'trial'"):
                self._runs.setdefault(run.data.tags[KEY], _known(run))
            self._all_trials_read = True
        return [(key, run) for key, run in self._runs.items() if run.tags[KIND] == "trial"]

    def _search(self, condition: str) -> Iterator[Any]:
        token = None
        while token != "":
            page = self._client.search_runs(
                [self.experiment_id], condition, ViewType.ACTIVE_ONLY, RUNS_A_PAGE, page_token=token
            )
            yield from page
            token = page.token or ""

    def _read_points(self, run: _Run, names: set[str]) -> None:
        for name in names & run.unread:
            history = self._client.get_metric_history(run.id, name)
            run.points[name] = {point.step: point.value for point in sorted(history, key=lambda p: p.timestamp)}
            run.unread.discard(name)

    def _release(self, run: _Run) -> None:
        """Forgets the points of a closed run: a long study has more of them than memory."""
        if run.status != "RUNNING":
            run.unread |= run.points.keys()
            run.points = {}

    def _log(self, run: _Run, points: Iterable[tuple[str, int, float]], times: Mapping[int, int]) -> None:
        finite = (self._metric(run, point, times) for point in points if math.isfinite(point[2]))
        while batch := list(islice(finite, METRICS_A_BATCH)):
            names = {metric.key for metric in batch}
            run.unread |= names  # they stay there when the reply gets lost: then only the store knows
            self._client.log_batch(run.id, metrics=batch)
            run.unread -= names
            for metric in batch:
                run.points.setdefault(metric.key, {})[metric.step] = metric.value
                self._stamps.pop((run.id, metric.key, metric.step, metric.value), None)

    def _metric(self, run: _Run, point: tuple[str, int, float], times: Mapping[int, int]) -> Metric:
        """A point with its time: the epoch's, or that of the first attempt to send it."""
        name, step, value = point
        when = times.get(step) or self._stamps.setdefault((run.id, *point), _now_ms())
        return Metric(name, value, when, step)

    def _tag(self, run: _Run, tags: Mapping[str, str]) -> None:
        changed = {name: value for name, value in tags.items() if run.tags.get(name) != value}
        if changed:
            self._client.log_batch(run.id, tags=[RunTag(name, value) for name, value in changed.items()])
            run.tags.update(changed)


def store_file(tracking_uri: str) -> Path | None:
    """The file of an SQLite store, None for any other kind."""
    if not tracking_uri.startswith("sqlite:"):
        return None
    return Path(make_url(tracking_uri).database or "")


def is_server(tracking_uri: str) -> bool:
    """Whether the URI names an MLflow server, and not a database that anybody can serve."""
    return tracking_uri.startswith(("http://", "https://"))


def newest_experiment(tracking_uri: str, study: str | None = None) -> str | None:
    """The id of `newest`, None where there is none."""
    found = newest(tracking_uri, study)
    return found[0] if found else None


def newest(tracking_uri: str, study: str | None = None) -> tuple[str, str] | None:
    """Id and name of the study that a driver opened last, of that name where one is given; None where there is none.

    Raises: one of MIRROR_ERRORS where nothing answers at that place, or it is no MLflow store.
    """
    named = [experiment for experiment in _opened(tracking_uri) if study in (None, experiment.name)]
    last = max(named, key=lambda experiment: int(experiment.tags[OPENED]), default=None)
    return (last.experiment_id, last.name) if last else None


def names(tracking_uri: str) -> list[str]:
    """Names of all studies there. Raises: as `newest`."""
    return [experiment.name for experiment in _opened(tracking_uri)]


def _opened(tracking_uri: str) -> list[Any]:
    return list(MlflowClient(tracking_uri).search_experiments(filter_string=f"tags.`{OPENED}` LIKE '%'"))


def _known(run: Any) -> _Run:
    data = run.data
    return _Run(
        run.info.run_id, run.info.status, dict(data.tags), set(data.params), set(data.metrics), dict(data.metrics)
    )


def _standing(run: Any) -> tuple[bool, int, str]:
    """Sorts runs of one key: first what holds something, then the oldest."""
    return not (run.data.params or run.data.metrics), run.info.start_time, run.info.run_id


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
