"""Attributes in which modules hold a width that must follow their weights.

A C2f splits by ``self.c`` when it is exported, and its ``c`` is half of what its first convolution makes. Such facts
cannot be read from a run; families of modules state them once, by qualified class name, and whoever traces or compacts
relies on them. A split by a width that nobody stated is a barrier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from seqprune.graph.facts import WIDTH_ATTRIBUTES

if TYPE_CHECKING:
    from torch import nn

Widths = Mapping[str, Mapping[str, tuple[str, int]]]

_REGISTERED: dict[str, Mapping[str, tuple[str, int]]] = dict(WIDTH_ATTRIBUTES)


def register(widths: Widths) -> None:
    """Adds facts: ``{"pkg.C2f": {"c": ("cv1.conv", 2)}}`` means ``c = cv1.conv.out_channels // 2``."""
    _REGISTERED.update(widths)


def held(module: nn.Module) -> Mapping[str, tuple[str, int]]:
    """The width attributes of a module, empty for a class nobody stated any for (subclasses state their own)."""
    kind = type(module)
    return _REGISTERED.get(f"{kind.__module__}.{kind.__qualname__}", {})


def update(module: nn.Module) -> None:
    """Sets the width attributes of a module from the weights it has now."""
    for attribute, (source, parts) in held(module).items():
        channels = cast(int, module.get_submodule(source).out_channels)
        setattr(module, attribute, channels // parts)
