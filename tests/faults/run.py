"""`python -m tests.faults.run K1 --rounds 300`: many rounds of one fault, written down one by one, resumable.

Every round is a line in the record: its number, what it injected, how long it took, and what broke. Rounds that are
there already are not played again; so a run that was stopped goes on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import click

RULE_OF_THREE = 3.0  # n rounds without a failure bound its rate by 3/n, at 95 %


@click.command()
@click.argument("name")
@click.option("--rounds", default=30, show_default=True)
@click.option("--record", type=click.Path(path_type=Path), help="A line per round; rounds in it are not repeated.")
@click.option("--place", type=click.Path(path_type=Path), help="Where to work.  [default: a temporary folder]")
def main(name: str, rounds: int, record: Path | None, place: Path | None) -> None:
    """Play ROUNDS rounds of fault NAME; exit code 1 where an invariant broke."""
    with tempfile.TemporaryDirectory() as temporary:
        done = _read(record, name)
        for number in sorted(set(range(rounds)) - set(done)):
            done[number] = _one(_player(name), name, number, place or Path(temporary))
            if record:
                with open(record, "a", encoding="utf-8") as handle:
                    handle.write(json.dumps({"fault": name, "round": number, **done[number]}) + "\n")
    broken = [found["broke"] for found in done.values() if found["broke"]]
    injected = sum(found["injected"] for found in done.values())
    summary = {"fault": name, "rounds": len(done), "injected": injected, "broken": len(broken)}
    if not broken:
        summary["failure_rate_below"] = round(RULE_OF_THREE / max(1, len(done)), 4)
    click.echo(json.dumps(summary))
    for text in broken[:3]:
        click.echo(text, err=True)
    sys.exit(bool(broken))


def _player(name: str) -> Callable[[str, int, Path], int]:
    from tests.faults import rounds

    if name in rounds.ROUNDS:
        return rounds.play
    from tests.faults import ray_rounds

    return ray_rounds.play


def _one(play: Callable[[str, int, Path], int], name: str, number: int, place: Path) -> dict[str, object]:
    began, broke, injected = time.monotonic(), "", 0
    try:
        injected = play(name, number, place)
    except Exception:
        broke = traceback.format_exc()
    return {"injected": injected, "seconds": round(time.monotonic() - began, 2), "broke": broke}


def _read(record: Path | None, name: str) -> dict[int, dict[str, object]]:
    if record is None or not record.exists():
        return {}
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {line["round"]: line for line in lines if line["fault"] == name}


if __name__ == "__main__":
    main()
