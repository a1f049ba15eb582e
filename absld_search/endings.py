"""How a command ends before its time: one line for the person, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from absld_search.words import UsageError

USAGE, INTERRUPTED = 2, 75


@contextmanager
def said() -> Iterator[None]:
    """Inside, bad input ends the command with 2 and Ctrl-C with 75, each with its line on stderr."""
    try:
        yield
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        click.echo("interrupted: run the same command again to continue", err=True)
        sys.exit(INTERRUPTED)
