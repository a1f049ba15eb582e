"""`python -m absld_search.train`: one training, without Ray, Optuna or MLflow.

python -m absld_search.train --workload digits --method absld temperature_lr=0.2
python -m absld_search.train --workload cifar10-mini --data-dir DATA --epochs 2
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from absld_search import endings
from absld_search.words import UsageError, pair

ALWAYS = ("clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy", "robust_nsd")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--workload", default="digits", show_default=True, help="On what to train.")
@click.option("--method", default="absld", show_default=True, help="Any of docs/METHODS.md.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed index.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--epochs", type=int, help="[default: the workload's]")
@click.option("--deterministic", is_flag=True, help="The same bits every time on this machine; slower on a GPU.")
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="ABSLD_DATA_DIR", default=Path("data"),
              show_default=True, help="Where the workload's data set lies.")  # fmt: skip
@click.option("--teacher-dir", type=click.Path(path_type=Path), envvar="ABSLD_TEACHER_DIR", default=Path("teachers"),
              show_default=True, help="Where published teachers lie.")  # fmt: skip
@click.option("--download", is_flag=True, help="Fetch the data set into --data-dir first, with torchvision.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/train"), show_default=True,
              help="Its folder is OUT/<configuration's hash>-s<seed>; run again, it continues there.")  # fmt: skip
def main(**words: Any) -> None:
    """Train once with the hyperparameters KEY=VALUE and print its accuracies on val."""
    try:
        with endings.said("the last checkpoint is kept"):
            metrics = _train(**words)
    except ArithmeticError as error:
        click.echo(f"failed: {error}", err=True)
        sys.exit(3)
    except (MemoryError, RuntimeError) as error:
        from absld_search.core import memory

        if memory.reason(error) is None:
            raise
        click.echo(f"failed: {memory.reason(error)}: {error}", err=True)
        sys.exit(3)
    for name in ALWAYS:
        value = f"{metrics[name]:.4f}" if name in metrics else "undefined"
        click.echo(f"{name:<30}{value}")


def _train(
    words: tuple[str, ...], workload: str, method: str, seed: int, device: str, epochs: int | None,
    data_dir: Path, teacher_dir: Path, download: bool, out: Path, deterministic: bool,
) -> dict[str, float]:  # fmt: skip
    import torch

    from absld_search.core import config, data, datasets, teacher_making, trial
    from absld_search.core.files import Folders, require_writable
    from absld_search.workloads import workload as named

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no GPU that torch can use.")
    setting, folders = named(workload), Folders(str(data_dir.absolute()), str(teacher_dir.absolute()))
    given: dict[str, Any] = {"method": method, **dict(pair(word) for word in words)}
    given |= {} if epochs is None else {"epochs": epochs}
    asked = config.TrialConfig.from_words(given, workload, seed, device, folders=folders)
    asked = replace(asked, deterministic=deterministic)
    require_writable("--out", out / asked.key)  # before a teacher is trained for it
    if download and setting.dataset != "digits":
        datasets.download(setting.dataset, folders.data)
    for line in data.counted(setting.dataset, setting.split, folders.data):
        click.echo(line)
    for name in asked.teacher_names.values():
        teacher_making.ensure_teacher(setting, name, device, click.echo, folders, passing=click.echo)
    click.echo(f"{method} on {workload}, seed {seed}: {out / asked.key}")
    return trial.run_trial(asked, out / asked.key, lambda epoch, found: _line(asked.schedule.epochs, epoch, found))


def _line(total: int, epoch: int, metrics: dict[str, float]) -> None:
    shown = [f"{name} {metrics[name]:.3f}" for name in ("train/loss", *ALWAYS) if name in metrics]
    click.echo(f"epoch {epoch}/{total}  " + "  ".join(shown))


if __name__ == "__main__":
    main()
