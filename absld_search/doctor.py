"""`python -m absld_search.doctor [STUDY_FOLDER] [--fix] [--json]`: is this machine, and this study, in order?

Exit codes: 0 in order, perhaps with warnings; 1 at least one problem is left; 2 something in the command is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from absld_search.words import UsageError, counted

if TYPE_CHECKING:
    from absld_search.search.checks import Finding

PROBLEMS, USAGE = 1, 2
MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY_FOLDER]")
@click.option("--fix", is_flag=True, help="Put right what is safe: reap zombies, remove stale temporary files, tighten "
              "permissions. A study that a driver holds is not touched.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a check.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where studies are, or will be, written.")  # fmt: skip
@click.option("--storage", help="The study's database URL.  [default: study.db in its folder]")
def main(study: Path | None, fix: bool, as_json: bool, out: Path, storage: str | None) -> None:
    """Look at this machine, and at the study in STUDY_FOLDER where one is given."""
    try:
        states = [_shown(found, fix, as_json) for found in _findings(study, out, storage)]
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    if not as_json:
        click.echo(", ".join(counted(states.count(word), word) for word in ("problem", "warning")))
    sys.exit(PROBLEMS if "problem" in states else 0)


def _findings(study: Path | None, out: Path, storage: str | None) -> Iterator[Finding]:
    from absld_search.search import checks, study_checks  # takes a second, which --help need not pay

    if study is not None and not study_checks.is_study(study):
        raise UsageError(f"there is no study in {study}. A study's folder is OUT/NAME of the command that made it.")
    yield from checks.machine(study.absolute().parent if study is not None else out)
    if study is not None:
        with study_checks.hold(study) as free:
            yield from _safe(study_checks.study(study.absolute(), free, storage), free)


def _safe(findings: Iterable[Finding], free: bool) -> Iterator[Finding]:
    """A study that somebody holds is looked at, and not touched."""
    from dataclasses import replace

    for found in findings:
        yield found if free else replace(found, fix=None)


def _shown(found: Finding, fix: bool, as_json: bool) -> str:
    """Print a finding, put right first where that is asked for; how things stand then."""
    fixed = found.fix() if fix and found.fix is not None else ""
    state = "ok" if fixed else found.state
    remedy = "" if state == "ok" else found.remedy
    if as_json:
        row = {"check": found.name, "state": state, "text": found.text, "remedy": remedy, "fixed": fixed}
        click.echo(json.dumps(row))
    else:
        told = f" -> fixed: {fixed}" if fixed else f" -> {remedy}" if remedy else ""
        click.echo(f"{MARKS[state]}  {found.name}: {found.text}{told}")
    return state


if __name__ == "__main__":
    main()
