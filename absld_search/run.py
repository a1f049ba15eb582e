"""`python -m absld_search.run NAME`: a question goes in, an answer with error bars comes out.

No logic in here: words come in from the command line, the plan is made, checked, carried out and reported.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from absld_search import catalog, endings, top_level
from absld_search.words import Away, UsageError, checked_name, masked, pair, require_known
from absld_search.workloads import SMOKE, WORKLOADS, needs
from absld_search.workloads import workload as named


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False)
@click.option("--list", "list_", is_flag=True, help="The search spaces and workloads there are.")
@click.option("--list-workloads", is_flag=True, help="Each workload with its cost and what it needs.")
@click.option("--workload", default="digits", show_default=True, help="On what the question is asked.")
@click.option("--smoke", is_flag=True, help="Tiny everything, the same path through the code; proves the installation.")
@click.option("--dry-run", is_flag=True, help="Check everything, show what would run, create nothing.")
@click.option("--print-config", is_flag=True, help="The resolved plan as JSON; create nothing.")
@click.option("--arms", default="", metavar="ARM,ARM,...", help="Only these of the space's; others can be added later.")
@click.option("--trials", type=int, help="Configurations in each arm that has something to tune.")
@click.option("--seeds", type=int, help="Fresh seeds with which each arm's choice is confirmed on test.  [default: 8]")
@click.option("--search-seeds", type=int, default=1, show_default=True, help="Seeds of each configuration in search.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Fix a parameter in every arm; repeatable.")
@click.option("--sampler", help="tpe, gp, nsga2, nsga3, qmc, random or botorch.  [default: the workload's]")
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    metavar="'METRIC >= X'",
    help="Trials that break it are on no front; repeatable.",
)
@click.option("--stopping", default="none", show_default=True, help="none, asha or mo-asha: train most trials less.")
@click.option("--eta", type=int, default=3, show_default=True, help="One in ETA goes on to ETA times the epochs.")
@click.option("--grace", type=int, help="Epochs of the shortest training.  [default: a ninth, at least 2]")
@click.option("--race", is_flag=True, help="More seeds for those whose place on the front is in doubt.")
@click.option("--time-budget", type=float, help="Hours of training for the search of all arms together, shared "
              "equally; the confirm stage comes on top.")  # fmt: skip
@click.option("--gpu-hours", type=float, help="The same in hours of a GPU.")
@click.option("--epochs-budget", type=int, help="The same in epochs.")
@click.option("--reuse", is_flag=True, help="Take over equal trainings of other studies under --out.")
@click.option("--retry-failed", is_flag=True, help="Train anew what has failed, when its cause is repaired.")
@click.option("--deterministic", is_flag=True, help="The same bits every time on this machine; slower on a GPU.")
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="ABSLD_DATA_DIR", default=Path("data"),
              show_default=True, help="Where the workload's data set lies.")  # fmt: skip
@click.option("--teacher-dir", type=click.Path(path_type=Path), envvar="ABSLD_TEACHER_DIR", default=Path("teachers"),
              show_default=True, help="Where published teachers lie.")  # fmt: skip
@click.option("--download", is_flag=True, help="Fetch the data set into --data-dir first, with torchvision.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where to write.")
@click.option("--study", help="The study's name.  [default: NAME-WORKLOAD]")
@click.option("--fork-study", is_flag=True, help="A changed question under an old name goes on as NAME-2, NAME-3, ...")
@click.option(
    "--store", default="", metavar="URI", help="Where machines without a common --out leave trainings: s3://..."
)
@click.option("--storage", help="Database URL.  [default: SQLite in the study's folder]")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow store or server.  [default: OUT/mlflow.db]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if a trial gets a GPU]")
@click.option(
    "--gpus-per-trial", type=float, help="May be a fraction.  [default: with --device cuda the workload's, else 0]"
)
@click.option("--cpus-per-trial", type=float, default=1.0, show_default=True)
@click.option("--processes-per-trial", type=int,
              help="One training in several processes.  [default: one for each of its GPUs]")  # fmt: skip
@click.option("--max-concurrent", type=int, help="Trainings at a time.  [default: what the resources allow]")
@click.option("--address", envvar="RAY_ADDRESS", help="A Ray cluster; without it Ray starts on this machine.")
@click.option("--wait-for-nodes", type=float, default=0.0, metavar="SECONDS",
              help="For a cluster that grows: how long a request that it can't serve yet is kept.")  # fmt: skip
def main(**words: Any) -> None:
    """Answer the question of search space NAME (or of a .py file). Running it again continues."""
    with endings.said():
        sys.exit(_main(**words))


def _main(
    name: str | None,
    list_: bool,
    list_workloads: bool,
    dry_run: bool,
    print_config: bool,
    download: bool,
    fork_study: bool,
    **words: Any,
) -> int:
    top_level.require_ours()
    if list_ or list_workloads:
        return _list() if list_ else _list_workloads()
    if name is None:
        raise UsageError(f"NAME is missing. Known: {', '.join(catalog.names())}.")
    entry = catalog.load(name)
    _check_names(**words)
    from absld_search.search import forking, plan, preflight

    made = plan.resolve(_request(entry, **words), entry.space)
    try:
        made = forking.forked(made) if fork_study else made
        if download:
            preflight.download(made)
        preflight.check(made, dry=dry_run or print_config)
    except Away as error:
        click.echo(f"stopped: {error}. Run the same command again to continue.", err=True)
        return endings.INTERRUPTED
    from absld_search.search import describe  # only now: a refusal should not wait for SciPy

    if print_config:
        click.echo(json.dumps(describe.as_dict(made), indent=1))
        return 0
    click.echo(describe.opening(made))
    if made.request.forked_from:
        click.echo(f"  fork       of study {made.request.forked_from}: this one is {made.request.study}")
    if dry_run:
        click.echo(describe.sampled(made))
        return 0
    return _carry_out(made)


def _check_names(
    workload: str, study: str | None, sampler: str | None, stopping: str, set_: tuple[str, ...], **_: Any
) -> None:
    """What can be told of the words without torch, whose import takes seconds. Raises: UsageError."""
    from absld_search.search import samplers, scheduler

    named(workload)
    if study:
        checked_name("--study", study)
    if sampler:
        samplers.require(sampler)
    require_known("--stopping", stopping, scheduler.STOPPING)
    for text in set_:
        pair(text)


def _carry_out(made: Any) -> int:
    from absld_search.search import ownership, study

    try:
        with study.held(made) as started:
            code = started.run()
            written = _report(started, made.folder, whole=code != study.INTERRUPTED)
            click.echo(started.closing(code, written))
    except ownership.Held as error:
        click.echo(f"error: {error}", err=True)
        return study.HELD
    except Exception as error:
        why = study.why_stopped(error)
        if why is None:
            raise
        click.echo(f"stopped: {why}. Run the same command again to continue.", err=True)
        return study.INTERRUPTED
    return code


def _report(started: Any, folder: Path, whole: bool) -> bool:
    """Write the report and publish it; whether it could be written, for a study has its results without it too.

    `whole`: the study is, so its answer is shown and its figures for papers are made.
    """
    from absld_search.search import study
    from analysis import report

    try:
        answer = report.write(folder, papers=whole)
    except Exception as error:
        if study.why_stopped(error) is not None:
            raise
        why = (str(error).splitlines() or [""])[0]
        line = f"no report: {type(error).__name__}: {why}; try again with `python -m analysis.report {folder}`"
        click.echo(line, err=True)
        started.publish(None, line)
        return False
    started.publish(folder / "report", report.summary(answer))
    if whole:
        click.echo(report.table(answer))
    return True


def _list() -> int:
    click.echo("Search spaces (python -m absld_search.run NAME):")
    entries = catalog.entries()
    width = 2 + max(len(name) for name in (*WORKLOADS, *(entry.name for entry in entries)))
    for entry in entries:
        arms, tuned = ", ".join(entry.space.arms), ", ".join(entry.space.tuned) or "nothing"
        click.echo(f"  {entry.name:<{width}}{entry.question}\n{'':{width + 2}}arms: {arms}; tuned: {tuned}")
    click.echo("\nWorkloads (--workload NAME):")
    for setting in WORKLOADS.values():
        click.echo(f"  {setting.name:<{width}}{setting.summary}")
    return 0


def _list_workloads() -> int:
    for setting in WORKLOADS.values():
        click.echo(f"{setting.name}\n    {setting.summary}\n    a training: {setting.cost}")
        click.echo(f"    on a GPU: {setting.trials_per_gpu} at a time, unless --gpus-per-trial says otherwise")
        for need in needs(setting) or ["nothing"]:
            click.echo(f"    needs {need}")
    return 0


def _request(entry: catalog.Entry, **words: Any) -> Any:
    """The command line's words as a request. Raises: UsageError."""
    from absld_search.search.ledger import sqlite_url
    from absld_search.search.mlflow_view import store_uri
    from absld_search.search.plan import Request

    smoke, out = words.pop("smoke"), words["out"].absolute()
    workload = words.pop("workload") + (SMOKE if smoke else "")
    study = checked_name("--study", words.pop("study") or f"{entry.name}-{workload}")
    if smoke:
        words["seeds"] = 2 if words["seeds"] is None else words["seeds"]
    for folder in ("data_dir", "teacher_dir"):
        words[folder] = str(words[folder].absolute())
    words["arms"] = tuple(filter(None, map(str.strip, words["arms"].split(","))))
    words["constraints"] = tuple(words["constraints"])
    words["set"] = dict(pair(text) for text in words.pop("set_"))
    words["storage"] = words["storage"] or sqlite_url(out / study / "study.db")
    own = [] if words["tracking_uri"] is None else ["--tracking-uri", masked(words["tracking_uri"])]
    show = shlex.join(["python", "-m", "absld_search.ui", *(own or ["--out", str(out)]), "--study", study])
    words["tracking_uri"] = words["tracking_uri"] or store_uri(out)
    words["device"] = words["device"] or ("cuda" if (words["gpus_per_trial"] or 0) > 0 else "cpu")
    if words["gpus_per_trial"] is None:
        words["gpus_per_trial"] = 1 / named(workload).trials_per_gpu if words["device"] == "cuda" else 0.0
    command = masked(shlex.join(["python", "-m", "absld_search.run", *sys.argv[1:]]))
    return Request(**{**words, "space": entry.name, "question": entry.question, "workload": workload,
                      "study": study, "out": out, "command": command, "show": show})  # fmt: skip


if __name__ == "__main__":
    main()
