"""Blocks that give their only input to one convolution of theirs, which may be made of two then.

That cannot be read from a run; families of modules state it once, by qualified class name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqprune.graph.facts import ONE_CONVOLUTION

if TYPE_CHECKING:
    from torch import nn


def child_of(module: nn.Module) -> str | None:
    """Name of the convolution in a module; ``None`` for a class nobody stated it for (subclasses state their own)."""
    kind = type(module)
    return ONE_CONVOLUTION.get(f"{kind.__module__}.{kind.__qualname__}")
