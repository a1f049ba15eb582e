"""The commands that the documentation shows: found in its pages, taken apart, and held against what they call."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STARTS = ("python -m ", "make", ". ")  # of a line in a block that is a command
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
INDENTED = re.compile(r"^ {4,}(python -m .*)$", re.M)
INLINE = re.compile(r"`((?:python -m|make) [^`]+)`")


class Shown(NamedTuple):
    """A command without its comment, and the page that shows it."""

    command: str
    page: str


def shown() -> list[Shown]:
    """Every command of every page, in order."""
    return [Shown(command, str(page.relative_to(ROOT))) for page in PAGES for command in _of(page.read_text("utf-8"))]


def _of(text: str) -> Iterator[str]:
    for language, block in FENCE.findall(text):
        if language in ("sh", "bash", "console"):
            yield from filter(None, map(_bare, re.sub(r"\\\n\s*", "", block).splitlines()))
    prose = FENCE.sub("", text)
    for found in (*INDENTED.findall(prose), *INLINE.findall(prose)):
        yield _bare(" ".join(found.split()))


def _bare(line: str) -> str:
    return re.sub(r"\s+#.*$", "", line).strip()


def unknown_words(command: str) -> str:
    """What of a command does not exist: its module, one of its options, a make target; "" where all do."""
    words = shlex.split(command)
    if words[:1] == ["make"]:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        return ", ".join(word for word in words[1:] if word not in targets)
    if words[:2] != ["python", "-m"]:
        return ""
    module, rest = words[2], words[3:]
    if module in ("build", "pip"):
        return ""  # others' commands
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        return f"{module} is no module"
    door = getattr(importlib.import_module(module), "main", None) if module.startswith(("absld", "analysis")) else None
    return _refused(door, rest) if isinstance(door, click.Command) else _not_in_source(path, rest)


def _refused(door: click.Command, words: list[str]) -> str:
    """What click says to the words, without doing anything; "" where it takes them."""
    try:
        door.make_context("shown", list(words)).close()
    except click.UsageError as error:
        return error.format_message()
    except click.exceptions.Exit:
        pass  # --help
    return ""


def _not_in_source(path: Path, words: list[str]) -> str:
    """Options that neither the module nor what its folder shares names in its source."""
    sources = "".join(file.read_text("utf-8") for file in (path, *path.parent.glob("*.py")))
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return ", ".join(option for option in options if f'"{option}"' not in sources)
