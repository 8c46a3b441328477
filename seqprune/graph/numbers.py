"""Whole numbers that modules hold: in attributes of their own, and in lists and dictionaries that are called widths."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

from torch import nn

WIDTH_NAME = re.compile(
    r"chan|feat|plane|filt|dim|width|hidden|embed|unit|inp|oup|chs?(_|$)|^_?(c|ch|n|num)?_?(in|out)?$|^c(_|\d)*$|^n_?f$",
    re.IGNORECASE,
)


SECTIONS_NAME = re.compile(r"split|section", re.IGNORECASE)
"""Of lists by which code takes channels apart."""


def numbers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes and what they hold, as ``width`` and ``planes[0]`` and ``cfg['dim']``, where it may be a number."""
    for attribute, held in list(vars(module).items()):
        if type(held) is dict:
            yield from ((f"{attribute}[{key!r}]", one) for key, one in held.items() if _is_key(attribute, key))
        elif type(held) in (list, tuple) and (WIDTH_NAME.search(attribute) or SECTIONS_NAME.search(attribute)):
            yield from ((f"{attribute}[{at}]", one) for at, one in enumerate(held))
        else:
            yield attribute, held


def put(module: nn.Module, attribute: str, number: Any) -> None:
    """Gives a module another number, in a list or dictionary of its own where it lies in one."""
    name, inside, place = attribute.removesuffix("]").partition("[")
    if not inside:
        module.__dict__[name] = number
        return
    held, key = vars(module)[name], literal_eval(place)
    pairs = list(held.items()) if type(held) is dict else list(enumerate(held))
    changed = {at: number if at == key else one for at, one in pairs}
    module.__dict__[name] = changed if type(held) is dict else type(held)(changed.values())


def _is_key(attribute: str, key: object) -> bool:
    """Whether what lies there may be a width: by its own name, or by that of the dictionary where it is a number."""
    return bool(WIDTH_NAME.search(key)) if type(key) is str else type(key) is int and bool(WIDTH_NAME.search(attribute))
