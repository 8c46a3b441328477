"""Outputs of a network that are handed on for their shape alone.

The channels of a network's outputs must stay, for whoever reads them. Some heads return, beside their predictions, the
feature maps they read, from which a loss takes nothing but heights and widths. Families of networks state
that once, by qualified class name and by the key in the dictionaries they return; such entries pin nothing and are not
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from seqprune.graph.facts import SHAPE_ONLY_OUTPUTS
from seqprune.graph.values import tensors_in

OUTPUT = "network output"
"""Why channels of a layer stay whose tensor the network returns."""
_SHAPE_ONLY: dict[str, frozenset[str]] = dict(SHAPE_ONLY_OUTPUTS)


def register(shape_only: Mapping[str, frozenset[str]]) -> None:
    """Adds facts: ``{"pkg.Detector": frozenset({"feats"})}``."""
    _SHAPE_ONLY.update(shape_only)


def read(model: nn.Module, out: Any) -> Any:
    """``out`` without the entries that are handed on for their shape alone."""
    kind = type(model)
    ignored = _SHAPE_ONLY.get(f"{kind.__module__}.{kind.__qualname__}")
    return out if ignored is None else _without(out, ignored)


def _without(tree: Any, ignored: frozenset[str]) -> Any:
    if isinstance(tree, dict):
        return {key: _without(entry, ignored) for key, entry in tree.items() if key not in ignored}
    if isinstance(tree, list | tuple):
        return [_without(entry, ignored) for entry in tree]
    return tree


def taken(run: Callable[[tuple[Any, ...]], list[torch.Tensor]], *given: tuple[Any, ...]) -> bool:
    """Whether a network makes of all inputs what it makes of the first: as many rows for each, all of them numbers.

    One that flattens images of a fixed size may make several rows of a larger one, and knows nothing of it.
    """
    made = [run(inputs) for inputs in given]
    batches = [next(t.shape[0] for t in tensors_in(inputs) if t.dim()) for inputs in given]
    rows = [[t.shape[:1].numel() / batch for t in found] for found, batch in zip(made, batches, strict=True)]
    return all(each == rows[0] for each in rows) and all(t.isfinite().all() for found in made for t in found)
