"""`python -m absld_search.status STUDY_FOLDER`: how a study stands, from any terminal, while it runs or after.

It only reads: it takes no lock that a driver could miss, creates nothing and changes no schema.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from absld_search import endings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY_FOLDER")
@click.option("--storage", help="The study's database URL.  [default: study.db in its folder]")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def main(study: Path, storage: str | None, as_json: bool) -> None:
    """Say how many trainings are done, running or interrupted, and failed, the front, and the time left."""
    with endings.said():
        from absld_search.search import gpu_use, reading, standing  # takes a second, which --help need not pay

        found = reading.look(study.absolute(), storage)
        gpus = gpu_use.gpu_lines() if found.driver else []
        if as_json:
            click.echo(json.dumps({**asdict(found), "gpus": gpus}, indent=1))
            return
        click.echo(f"{found.study}: {'driven by ' + found.driver if found.driver else 'nobody drives it'}")
        click.echo("\n".join(standing.lines(found.standing, gpus)))
        if not found.driver and found.standing.done < found.standing.total:
            command = f": {found.command}" if found.command else ""
            click.echo(f"not finished: the same command goes on where it stopped{command}")


if __name__ == "__main__":
    main()
