"""Blocks that give their only input to one convolution of theirs, which may be made of two then.

That cannot be read from a run; families of modules state it once, by qualified class name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seqprune.graph.facts import ONE_CONVOLUTION

if TYPE_CHECKING:
    from torch import nn

_REGISTERED: dict[str, str] = dict(ONE_CONVOLUTION)


def register(blocks: Mapping[str, str]) -> None:
    """Adds facts: ``{"pkg.Conv": "conv"}`` means that nothing but its child ``conv`` reads what a ``Conv`` is given."""
    _REGISTERED.update(blocks)


def child_of(module: nn.Module) -> str | None:
    """Name of the convolution in a module; ``None`` for a class nobody stated it for (subclasses state their own)."""
    kind = type(module)
    return _REGISTERED.get(f"{kind.__module__}.{kind.__qualname__}")
