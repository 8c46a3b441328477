"""What callers hand over, of the kind that it is to be: NumPy's numbers as Python's, all else refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from os import PathLike
from typing import Any

import numpy as np

from seqprune.errors import InputError
from seqprune.plain import is_count, printable


def checked(name: str, value: object, kind: str) -> Any:
    """A value as the kind has it.

    Args:
        name: what the caller calls it.
        value: as it was given; ``None`` where it was left out, which is let pass.
        kind: a key of ``KINDS``.

    Raises:
        InputError: it is of another kind.
    """
    read, wanted = KINDS[kind]
    if value is None:
        return None
    try:
        return read(value.item() if isinstance(value, np.generic) else value)
    except TypeError as error:
        raise InputError(f"{name}={printable(repr(value), 60)} is a {type(value).__name__}: give {wanted}") from error


def settle(settings: Any, called: Mapping[str, str] | None = None) -> None:
    """Checks the fields of settings in place, each as its annotation says.

    Args:
        settings: a dataclass.
        called: fields that callers know by another name.

    Raises:
        InputError: a value is of another kind.
    """
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        object.__setattr__(settings, entry.name, _field(value, entry, called or {}))


def _field(value: Any, entry: Field[Any], called: Mapping[str, str]) -> Any:
    kind = str(entry.type).removesuffix(" | None")
    if value is None and kind == entry.type:
        value = () if kind == "Sequence[str]" else value
        if kind == "bool":
            raise InputError(f"{entry.name}=None is a NoneType: give True or False")
    if kind in KINDS and entry.name != "target":  # who reads that says how it is written
        return checked(called.get(entry.name, entry.name), value, kind)
    return value.item() if isinstance(value, np.generic) else value


def _text(value: object) -> str:
    return value if isinstance(value, str) else _refused()


def _flag(value: object) -> bool:
    return bool(value) if isinstance(value, int) and value in (0, 1) else _refused()


def _path(value: object) -> Any:
    return value if isinstance(value, str | PathLike) else _refused()


def _function(value: object) -> Any:
    return value if callable(value) else _refused()


def _mapping(value: object) -> Any:
    return value if isinstance(value, Mapping) else _refused()


def _many(value: Any, each: Callable[[Any], bool]) -> tuple[Any, ...]:
    """Several of them, for which one text, whose elements are letters, does not stand."""
    found = () if isinstance(value, str | bytes) else tuple(value)  # a TypeError where there are none
    found = tuple(part.item() if isinstance(part, np.generic) else part for part in found)
    return found if all(map(each, found)) and not isinstance(value, str | bytes) else _refused()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return is_count(value, -(2**31))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count_or_texts(value: Any) -> Any:
    return value if _is_whole(value) else _many(value, _is_text)


def _refused() -> Any:
    raise TypeError


KINDS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "bool": (_flag, "True or False"),
    "str": (_text, "a text"),
    "str | Path": (_path, "the path of a file or a folder"),
    "Sequence[str]": (lambda value: _many(value, _is_text), "a list of texts"),
    "int | Sequence[str]": (_count_or_texts, "a whole number, or a list of texts"),
    "Iterable[int]": (lambda value: _many(value, _is_whole), "a list of whole numbers"),
    "Sequence[float]": (lambda value: _many(value, _is_number), "a list of numbers"),
    "Collection[str | int]": (
        lambda value: _many(value, lambda part: _is_text(part) or _is_whole(part)),
        "a list of names or numbers",
    ),
    "Mapping[str, Any]": (_mapping, "a dictionary"),
    "Evaluate": (_function, "a function"),
}
"""By an annotation, how a value is read, which raises TypeError for one of another kind, and what to give."""
