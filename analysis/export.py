"""`python -m analysis.export STUDY --pick WHICH --to DIR`: one training of a study, whole, to hand on.

python -m analysis.export runs/STUDY --pick knee --to bundle
python -m analysis.export runs/STUDY --pick best:worst_class_robust_accuracy --arm dual --to bundle
python -m absld_search.reproduce bundle

A training that has ended keeps its weights, so nothing is trained here. What is picked is a trial, by its values on
val; the training of it that is exported is its first confirm seed, or its first search seed where it was not
confirmed: never the one that did best on test.
"""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click
import pyarrow.compute as pc

from absld_search import endings
from absld_search.core import results
from absld_search.core.files import sha256_of
from absld_search.words import UsageError
from analysis import loading
from analysis.answer import smoke
from analysis.picking import pick, training_of, unconfirmed

FORMAT = 1  # raised when the bundle changes its form
WEIGHTS = "model.safetensors"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY_FOLDER")
@click.option(
    "--pick",
    "which",
    default="knee",
    show_default=True,
    help="knee (of the arms' choices, if confirmed), best:METRIC or id:TRIAL, all by val.",
)
@click.option("--arm", help="Pick among the trials of this arm alone.")
@click.option("--seed", type=int, help="Seed index of the training.  [default: the first confirm seed]")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="A folder that is not there yet.")
def main(study: Path, which: str, arm: str | None, seed: int | None, target: Path) -> None:
    """Write config, weights, values by class, the verdict on every image and where they come from into one folder."""
    with endings.said():
        told = export(study, which, target, arm=arm, seed=seed)
        click.echo(f"{told['name']}: {told['split']} values, weights {told['sha256'][:12]}\n{target / 'result.json'}")
        if told["warning"]:
            click.echo(f"warning: {told['warning']}")
        if told["study"]["note"]:
            click.echo(f"note: {told['study']['note']}")
        click.echo(f"again: python -m absld_search.reproduce {target}")
        sys.exit(0)


def export(
    study: Path | str, which: str, target: Path | str, *, arm: str | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Write the bundle of the trial that `which` names; the content of its `result.json`.

    Raises: UsageError, before anything is created, where the study, trial, seed or target cannot be had.
    """
    study, target = Path(study), Path(target)
    tables = load(study)
    trial = pick(tables, which, arm)
    training = training_of(tables, trial, seed)
    if target.exists():
        raise UsageError(f"--to: {target} is there already; name a folder that is not.")
    source = study / "trainings" / training["training"]
    for name in (WEIGHTS, "images.parquet"):
        if not (source / name).is_file():
            raise UsageError(f"study: training {training['training']} keeps no {name}, so there is nothing to export.")
    described = _described(tables, trial, training, source)
    content = _result(
        tables, trial, training, described, source, which, unconfirmed(tables, which, arm, trial, training["stage"])
    )
    _write(target, source, described, content)
    return content


def load(study: Path) -> results.Tables:
    """What a report loads of a study, and the classes of every training. Raises: UsageError where there is none."""
    try:
        return replace(loading.load(study), classes=results.read(study, "classes"))
    except FileNotFoundError as error:
        raise UsageError(f"study: {error}.") from None


def _described(
    tables: results.Tables, trial: Mapping[str, Any], training: Mapping[str, Any], source: Path
) -> dict[str, Any]:
    """What the training wrote of itself; from the study's words where an older program wrote nothing."""
    from absld_search.core.config import TrialConfig  # brings torch, for which a refusal need not wait

    try:
        found: dict[str, Any] = json.loads((source / "training.json").read_text(encoding="utf-8"))
        return found
    except OSError:
        facts = tables.facts
        words = {**loading.words_of(facts, trial["arm"]), **json.loads(trial["params"])}
        confirmed = training["stage"] == "confirm"
        made = TrialConfig.from_words(words, facts["workload"], training["seed"], test=confirmed)
    if made.hash != training["config"]:
        raise UsageError("study: another version of the program made it, which would train this trial differently.")
    return {**made.described(), "environment": None}


def _result(
    tables: results.Tables, trial: Mapping[str, Any], training: Mapping[str, Any], described: Mapping[str, Any],
    source: Path, which: str, note: str,
) -> dict[str, Any]:  # fmt: skip
    """The first names are RobustBench's."""
    from absld_search.checkpoint_evaluation import radius, summary
    from absld_search.workloads import workload

    facts, config = tables.facts, described["config"]
    outcomes = _outcomes(facts, source)
    split = "test" if "test" in outcomes else "val"
    objectives = {name: trial[f"objective/{name}"] for name in facts["objectives"]}
    return {
        "format": FORMAT,
        "name": f"{facts['study']} {trial['trial']} seed {training['seed']}",
        **dict.fromkeys(("link", "authors", "venue", "reported")),  # for whoever publishes it to fill in
        "dataset": workload(facts["workload"]).dataset,
        "threat_model": "Linf",
        "eps": radius(float(config["hyperparameters"]["eps"])),
        "architecture": workload(facts["workload"]).student,
        "additional_data": False,
        "number_forward_passes": 1,
        "sha256": sha256_of(source / WEIGHTS),
        "workload": facts["workload"],
        "warning": " ".join(smoke(facts["workload"])),
        "split": split,
        "images": len(outcomes[split][0].correct),
        **summary(outcomes[split], tuple(facts["classes"])),
        "study": {
            "name": facts["study"],
            "question": facts["question"],
            "trial": trial["trial"],
            "arm": trial["arm"],
            "pick": which,
            "on_front": bool(trial["pareto"]),
            "val": objectives,
            "seed": training["seed"],
            "stage": training["stage"],
            "note": note,
            "command": facts.get("command", ""),
            "data": facts.get("data"),
            "teachers": facts.get("teachers", {}),
        },
        "deterministic": bool(config.get("deterministic", False)),
        "reproduce": "python -m absld_search.reproduce DIR",
    }


def _outcomes(facts: Mapping[str, Any], source: Path) -> dict[str, list[Any]]:
    """Split -> the stored verdicts of the training in `source`, one outcome an attack."""
    from absld_search.core.evaluation import Outcome

    images = results.read(source.parents[1], "images", [source.name])
    found: dict[str, list[Any]] = {}
    for row in images.group_by(["split", "attack"]).aggregate([]).to_pylist():
        of = images.filter((pc.field("split") == row["split"]) & (pc.field("attack") == row["attack"]))
        ids, labels, correct = (of[name].to_numpy() for name in ("image", "label", "correct"))
        outcome = Outcome(row["attack"], ids, labels, correct, len(facts["classes"]))
        found.setdefault(row["split"], []).append(outcome)
    return found


def _write(target: Path, source: Path, described: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """The folder appears whole or not at all."""
    making = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    making.mkdir(parents=True)
    try:
        for name in (WEIGHTS, "images.parquet"):
            shutil.copyfile(source / name, making / name)
        results.write_json(making / "config.json", {name: described[name] for name in ("key", "hash", "config")})
        results.write_json(making / "environment.json", {"trained": described["environment"], "exported": _packages()})
        results.write_json(making / "result.json", content)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _packages() -> dict[str, str]:
    """Every package of the environment that exports, with its version."""
    found = {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


if __name__ == "__main__":
    main()
