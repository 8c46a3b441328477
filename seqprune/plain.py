"""Files that somebody else may have written: read with a size, checked for depth and numbers, printed harmlessly.

Nothing here knows what a file is about. What is read has an end (a named pipe or a device has none), JSON and YAML have
a depth and finite numbers, and text loses what a terminal would take for an instruction.
"""

from __future__ import annotations

import html
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped,unused-ignore]

from seqprune.errors import InputError

MIB = 1 << 20
TEXT = 64 * MIB
"""Of a plan or a description: the plan of the widest known network has less than one."""
_YAML = MIB  # ImageNet's 21,841 names take half of it
_PAGE = 100_000  # characters
_EVENTS = 150_000
_LONGEST = 4096  # characters of one YAML value: 1:1:1:... is a number whose reading takes the square of its length
_DEEPEST = 32
_MOST = 2_000_000  # values in one file
_LARGEST = 2**53  # beyond it JSON's readers disagree about whole numbers
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableError(InputError):
    """A file, or the text in it, is none of those that are read: the message says why, on one line."""


def printable(text: object, limit: int = 400) -> str:
    """A text for a terminal or a page: one line, without control characters, cut at ``limit``."""
    found = str(text)[: limit + 1]
    if not found.isprintable():
        found = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in found)
    return found if len(found) <= limit else found[: limit - 1] + "…"


def on_a_page(text: str) -> str:
    """A text for HTML: escaped, without control characters."""
    return html.escape(printable(text, _PAGE))


def why_no_file(path: str | Path) -> str:
    """Why nothing is read from ``path``: it is no regular file; empty where it is one.

    A pipe would be waited for, a device has no end.
    """
    if not isinstance(path, str | os.PathLike):
        return "is no path"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:
        return f"cannot be read ({printable(error)})"
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    for is_kind, name in kinds.items():
        if is_kind(mode):
            return f"is {name}, not a file"
    return "" if stat.S_ISREG(mode) else "is a device, not a file"


def text_of(path: str | Path, limit: int = TEXT) -> str:
    """What a text file holds, at most ``limit`` bytes of UTF-8.

    Raises:
        UnreadableError: there is no such file, it is longer, or it is no text.
    """
    if reason := why_no_file(path):
        raise UnreadableError(reason)
    try:
        with open(path, "rb") as file:
            found = file.read(limit + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({printable(error)})") from error
    if len(found) > limit:
        raise UnreadableError(f"is longer than {limit >> 20} MiB")
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is no text ({printable(error)})") from error


def json_of(text: str) -> Any:
    """What a JSON text says: finite numbers, nested a little.

    Raises:
        UnreadableError: it is no JSON, or holds Infinity, NaN or endless nesting.
    """
    try:
        found = json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise UnreadableError("is nested without end") from error
    except ValueError as error:
        raise UnreadableError(printable(error)) from error
    check_plain(found)
    return found


def yaml_of(text: str) -> Any:
    """What a YAML text says, without anchors: finite numbers, nested a little.

    Raises:
        UnreadableError: it is no YAML, is longer than a MiB, repeats parts of itself, or holds more than plain data.
    """
    if len(text) > _YAML:
        raise UnreadableError(f"is longer than {_YAML >> 20} MiB")
    try:
        _check_events(text)
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # Beside its own errors the loader lets those of dates and numbers through that are none.
        raise UnreadableError(printable(" ".join(str(error).split()))) from error
    check_plain(found)
    return found


def _check_events(text: str) -> None:
    """Stop at what would grow when it is put together: aliases multiply, depth recurses."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.AliasEvent):
            raise UnreadableError("repeats a part of itself (&, *); write it out")
        if number > _EVENTS or (isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST):
            raise UnreadableError("holds too many values, or one of too many characters")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UnreadableError("is nested without end")


def check_plain(found: Any) -> None:
    """Raise UnreadableError for what is nested deeper, or longer, than any description, or holds an endless number."""
    count, waiting = 0, [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST:
            raise UnreadableError("is nested without end" if depth > _DEEPEST else "holds too many values")
        if isinstance(value, dict):
            waiting += ((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list | tuple):
            waiting += ((part, depth + 1) for part in value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise UnreadableError(f"holds the number {value}")
        elif isinstance(value, int) and abs(value) > _LARGEST:
            raise UnreadableError("holds a number beyond all counts")


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether a value is a whole number, no truth value, within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_count(value: Any, least: int, most: int = 2**31) -> bool:
    """The same of what a caller gives in code, whose numbers may be NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def is_share(value: Any) -> bool:
    """Whether a value is a number above 0 and below 1."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < 1


def is_number(value: Any, least: float, most: float) -> bool:
    """Whether a value is a finite number, no truth value, within bounds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def is_name(value: Any, longest: int = 500) -> bool:
    """Whether a value is a text that can be shown as it is."""
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def name_of(value: Any) -> str:
    """A value that is a name; ValueError where it is none."""
    if not is_name(value):
        raise ValueError(f"{printable(value, 40)} is no name")
    return str(value)


def once(names: Sequence[str]) -> None:
    """ValueError where a name is there twice."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{printable(twice[0], 40)} stands there more than once")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"holds {text}, which is no number of JSON")
