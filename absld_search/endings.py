"""How a command ends before its time: one line for the person, and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from absld_search.words import UsageError

USAGE, INTERRUPTED = 2, 75


@contextmanager
def said(kept: str = "") -> Iterator[None]:
    """Inside, bad input ends the command with 2, Ctrl-C and SIGTERM with 75, each with its line on stderr.

    `kept`: what is there when the same command is run again.
    """
    try:
        with _sigterm_as_ctrl_c():
            yield
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        what = f"{kept}; " if kept else ""
        click.echo(f"interrupted: {what}run the same command again to continue", err=True)
        sys.exit(INTERRUPTED)


def shown(text: str) -> None:
    """Print a text of many lines; whoever has read enough of it (`| head`) ends it without an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's own flush at the end complains


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """What a scheduler sends is an interruption like a person's; by itself it would end Python without a word."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
