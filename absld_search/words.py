"""What a person who mistyped is told: one message, the field's name, the nearest valid word."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class UsageError(ValueError):
    """Bad input from the person at the keyboard. The commands print its text alone and exit with 2."""


class Away(OSError):
    """A database or a store does not answer: nobody is to blame, and who has begun goes on later (exit code 75)."""


def unknown(kind: str, word: str, valid: Iterable[str]) -> UsageError:
    """The error for a `word` that is not among the `valid` ones of its `kind`, naming the nearest."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"{kind} {word!r} is unknown.{hint} Known: {', '.join(names) or 'none'}.")


def require_known(kind: str, word: str, valid: Iterable[str]) -> str:
    """`word` itself when it is valid. Raises: UsageError with the nearest valid word."""
    names = list(valid)
    if word not in names:
        raise unknown(kind, word, names)
    return word


def checked_name(kind: str, name: str) -> str:
    """`name` where it can safely be a folder, a title and part of a query. Raises: UsageError."""
    if not NAME.fullmatch(name) or set(name) == {"."}:
        raise UsageError(f"{kind} {name!r} must be 1 to 64 letters, digits, '_', '.' or '-'.")
    return name


def number(name: str, value: object) -> float:
    """`value` as a finite float; accepts `8/255` and `1e-1` as people write them. Raises: UsageError."""
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str) and "/" in value:
            over, under = value.split("/")
            result = float(over) / float(under)
        else:
            result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        raise UsageError(f"{name} must be a number, not {value!r}.") from None
    if not math.isfinite(result):
        raise UsageError(f"{name} must be finite, not {value!r}.")
    return result


def integer(name: str, value: object) -> int:
    """`value` as an int, refusing fractions. Raises: UsageError."""
    result = number(name, value)
    if result != int(result):
        raise UsageError(f"{name} must be a whole number, not {value!r}.")
    return int(result)


def pair(text: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE. Raises: UsageError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r} must read KEY=VALUE.")
    return key, value


def counted(number: float, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def masked(text: str) -> str:
    """`text` without the passwords of the URLs in it."""
    text = re.sub(r"(://[^:/@\s]*:)[^/\s]*@", r"\1***@", text)
    return re.sub(r"([?&]password=)[^&\s]+", r"\1***", text)


def boolean(name: str, value: object) -> bool:
    """`value` as a truth value: true/false, yes/no, 1/0. Raises: UsageError.

    Never `bool(text)`, by which every word, "False" too, is true.
    """
    word = str(value).strip().lower()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    raise UsageError(f"{name} must be true or false, not {value!r}.")
