"""`python -m absld_search.reproduce DIR`: train an exported training again, and say whether it came out the same.

python -m analysis.export runs/STUDY --pick knee --to DIR
python -m absld_search.reproduce DIR

Exit codes: 0 the same weights and the same values of every class; 1 something differs, and what; 2 something in the
command is wrong; 3 the training failed; 75 interrupted, run it again to continue.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from absld_search import endings
from absld_search.words import UsageError

DIFFERS, FAILED = 1, 3


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--to", type=click.Path(path_type=Path), help="Where it is trained.  [default: DIR.reproduction]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: the one it was trained on]")
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="ABSLD_DATA_DIR", default=Path("data"),
              show_default=True, help="Where the workload's data set lies.")  # fmt: skip
@click.option("--teacher-dir", type=click.Path(path_type=Path), envvar="ABSLD_TEACHER_DIR", default=Path("teachers"),
              show_default=True, help="Where published teachers lie.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The whole comparison as JSON on stdout.")
def main(**words: Any) -> None:
    """Train what `analysis.export` wrote into DIR again, and compare weights, classes and images."""
    try:
        with endings.said():
            sys.exit(_reproduce(**words))
    except ArithmeticError as error:
        click.echo(f"failed: {error}", err=True)
        sys.exit(FAILED)


def _reproduce(
    folder: Path, to: Path | None, device: str | None, data_dir: Path, teacher_dir: Path, as_json: bool
) -> int:
    if not folder.is_dir():
        raise UsageError(f"DIR: there is no folder {folder}.")
    from absld_search.core import reproduction as again
    from absld_search.core.files import Folders

    bundle = again.read(folder)
    config = again.config_of(bundle, Folders(str(data_dir.absolute()), str(teacher_dir.absolute())), device)
    again.check_inputs(bundle, config, lambda line: click.echo(line, err=True))
    to = to or folder.with_name(f"{folder.name}.reproduction")
    click.echo(f"{bundle['result']['name']}: {config.schedule.epochs} epochs on {config.device}, in {to}", err=True)
    found = again.reproduce(bundle, folder, config, to, lambda epoch, metrics: None)
    click.echo(json.dumps(found, indent=1) if as_json else _told(found))
    return 0 if again.equal(found) else DIFFERS


def _told(found: dict[str, Any]) -> str:
    """A line for the weights, one for each attack, and what may explain a difference."""
    weights = found["weights"]
    most = found["largest_weight_difference"]
    by = "another network" if most is None else f"largest difference {most:.3g}"
    same = "equal" if found["weights_equal"] else f"DIFFER ({by})"
    lines = ["trained by an earlier run of this command; name another folder with --to to train anew"]
    lines = lines if found["earlier"] else []
    lines.append(f"weights  {same}  {weights['there'][:12]} there, {weights['here'][:12]} here")
    for row in found["attacks"]:
        state = "equal" if row["classes_equal"] else "DIFFER"
        lines.append(f"{row['split']:<5}{row['attack']:<10} {len(row['here'])} classes {state}; {row['differing']} of "
                     f"{row['n']} verdicts differ")  # fmt: skip
    if found["environment"] is None:
        lines.append("where the exported training was computed is not recorded")
    for name, (there, here) in (found["environment"] or {}).items():
        lines.append(f"other {name}: {there} there, {here} here")
    if not found["weights_equal"] and not found["deterministic"]:
        lines.append("not trained with --deterministic: then a GPU rounds its sums in another order each time")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
