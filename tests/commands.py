"""The commands that the documentation shows: found in its pages, taken apart, and held against what they call."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = r"(?:python -m|make|pip|ray|sbatch|squeue|scancel|kubectl|docker)"  # with which a command in prose begins
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
INDENTED = re.compile(rf"^ {{4,}}({PROGRAMS} .*)$", re.M)
INLINE = re.compile(rf"`({PROGRAMS} [^`]+)`")


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
    """What of a command does not exist: its module, an option, a make target, an extra to install; "" where all do."""
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        return _not_to_install(words[2:])
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


def _not_to_install(words: list[str]) -> str:
    """Extras of ours and files of constraints that are not there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    asked = [name for word in words for name in re.findall(r"^\.\[(.+)\]$", word)]
    files = [words[place + 1] for place, word in enumerate(words) if word == "-c"]
    lacking = [name for name in files if not (ROOT / name).is_file()]
    return ", ".join([*lacking, *(name for several in asked for name in several.split(",") if name not in extras)])


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
