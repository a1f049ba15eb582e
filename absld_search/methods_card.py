"""`python -m absld_search.methods_card`: write docs/METHODS.md, a card per method, from docstrings and fields.

With `--check` nothing is written, and exit code 1 says that the file is not current.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Method, knobs

HEAD = """# Methods

Written by `python -m absld_search.methods_card` from the code; change the docstrings, not this file.

Every method is trained with the workload's optimizer, schedule, epochs and attack, unless said otherwise: that is
what makes them comparable. Papers' epochs appear as shares of the budget. F and B are forward and backward passes of
the student in a step with ten attack steps, T-F those of a teacher. S is the student, T the teacher, x' the attacked
image, D the divergence as `kl_reduction` scales it, C the number of classes.
"""
BREAKS = (
    "Formula", "Differs from", "Not stated", "Not built", "Starts from", "Couplings:", "Without a teacher:", "FAWA:",
    "CCR ", "ReMargin:",
)  # fmt: skip
COMMON = tuple(knobs(Method))


def markdown() -> str:
    """The whole file."""
    parts = [HEAD, _table("Knobs of every method", Method, COMMON), _overview()]
    return "\n".join([*parts, *(_card(name, METHODS[name]) for name in sorted(METHODS))])


def _overview() -> str:
    rows = [f"| [{name}](#{name}) | {_escaped(_idea(cls))} | {_needs(cls)} |" for name, cls in sorted(METHODS.items())]
    return "\n".join(["| method | idea | needs |", "|---|---|---|", *rows, ""])


def _card(name: str, cls: type[Method]) -> str:
    pages = _pages(cls)
    lines = [f"## {name}", "", *(f"Source: {_escaped(_source(page))}  " for page in pages), ""]
    for page in [*([cls] if cls not in pages else []), *pages]:
        lines += [*(f"{_escaped(text)}\n" for text in _paragraphs(inspect.getdoc(page) or ""))]
    lines += [f"Cost of a step: {cls.cost}.  ", f"Needs: {_needs(cls)}.", ""]
    default = {key: field.default for key, field in knobs(cls).items()}
    own = tuple(key for key in default if key not in COMMON or default[key] != knobs(Method)[key].default)
    return "\n".join(lines) + "\n" + _table("", cls, own)


def _pages(cls: type[Method]) -> list[type]:
    """The classes that are papers' pages: a composed method has two."""
    package = "absld_search.core.methods."
    known = {other for other in METHODS.values() if other.__module__ != package[:-1]}
    if cls in known:
        return [cls]
    return [page for page in cls.__mro__ if page in known or page.__module__ == f"{package}fair_ard"]


def _source(page: type) -> str:
    return " ".join((inspect.getdoc(sys.modules[page.__module__]) or "").split("\n\n")[0].split())


def _idea(cls: type[Method]) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."


def _paragraphs(text: str) -> list[str]:
    """Wrapped lines joined; a new paragraph also where a line opens with one of the fixed phrases."""
    starts = "|".join(re.escape(phrase) for phrase in BREAKS)
    split = re.sub(rf"\n(?=(?:{starts}))", "\n\n", text)
    return [" ".join(part.split()) for part in split.split("\n\n")]


def _needs(cls: type[Method]) -> str:
    method = cls()
    found = [f"{role} teacher" for role in method.roles()]
    settled = method.training_defaults()
    if settled.get("init_from"):
        found.append(f"{settled['init_from']} first")
    if settled.get("averaging"):
        found.append(f"{settled['averaging']} averaging")
    if method.measured_on():
        found.append(f"a look at {method.measured_on()} every epoch")
    if cls.class_sampling is not Method.class_sampling:
        found.append("class sampling")
    return ", ".join(found) or "nothing"


def _table(title: str, cls: type[Method], names: tuple[str, ...]) -> str:
    if not names:
        return ""
    known = knobs(cls)
    rows = [f"| `{name}` | {_shown(known[name].default)} | {_allowed(known[name].metadata)} | "
            f"{_escaped(known[name].metadata['doc'])} |" for name in names]  # fmt: skip
    return "\n".join(
        [*([title, ""] if title else []), "| knob | default | allowed | |", "|---|---|---|---|", *rows, ""]
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value) or "(empty)"


def _allowed(rules: Mapping[str, Any]) -> str:
    if rules.get("options"):
        return ", ".join(rules["options"])
    low, above, high = rules.get("low"), rules.get("above"), rules.get("high")
    bounds = [f"≥ {low:g}" if low is not None else "", f"> {above:g}" if above is not None else ""]
    return ", ".join(word for word in [*bounds, f"≤ {high:g}" if high is not None else ""] if word)


def _escaped(text: str) -> str:
    """Prose as it stands: what Markdown would read as emphasis, table or tag is escaped, code is not."""
    parts = text.split("`")
    return "`".join(re.sub(r"([*|<])", r"\\\1", part) if k % 2 == 0 else part for k, part in enumerate(parts))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the file is not current.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/METHODS.md"), show_default=True)
def main(check: bool, out: Path) -> None:
    """Write a card for each method."""
    wanted = markdown()
    if not check:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(wanted, encoding="utf-8")
    elif not out.exists() or out.read_text(encoding="utf-8") != wanted:
        click.echo(f"{out} is not current: run python -m absld_search.methods_card", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
