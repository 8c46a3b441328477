"""Operators that take places of a map: windows and what they add up to, places of maxima, maps sampled elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, positive, require, rule
from seqprune.graph.values import Value

PLACES = ("max", "adaptive_max")


@rule("unfold", dims=ANY)
def windows(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """Of an image all numbers of a channel's window side by side; of a tensor windows along one other dimension."""
    value = r.followed(x)
    if out.dim() == x.dim() + 1:  # x.unfold(dimension, size, step)
        dim = args[0] if args else kwargs["dimension"]
        require(positive(dim, x.dim()) != value.dim, "mixes channels")
        return Value(value.known(), value.dim, value.zero)
    require(x.dim() == 4 and value.dim == 1, "the channels are not in dimension 1")
    return Value(np.repeat(value.known(), out.shape[1] // x.shape[1]), 1, value.zero)


@rule("fold", dims=3)
def folded(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """All numbers of a window become one channel."""
    value = r.followed(x)
    require(value.dim == 1, "the channels are not in dimension 1")
    ones = value.known().reshape(out.shape[1], -1)
    for other in ones.T[1:]:
        r.tie(ones[:, 0], other, "becomes one channel with others")
    return Value(ones[:, 0], 1, value.zero)


@rule("grid_sample", dims=range(4, 6))
def sampled(r: Recorder, out: torch.Tensor, x: torch.Tensor, grid: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """Between zeros lie zeros; where to look is a number each for rows and columns, which stay."""
    value, places = r.followed(x), r.value(grid)
    require(value.dim == 1, "the channels are not in dimension 1")
    r.foreign(grid, "grid_sample")
    if places is not None:
        r.pin(places.known(), f"{r.module or 'the network'} looks where they say")
    return Value(value.known(), 1, value.zero)


def pooled_with_places(r: Recorder, out: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> list[Value]:
    value = r.followed(x)
    require(value.dim == 1, "the channels are not in dimension 1")
    return [Value(value.known(), 1, value.zero), Value(value.known(), 1, zero=False)]


def unpooled(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, indices: torch.Tensor, *args: Any, **kwargs: Any
) -> Value:
    """Back at the places of maxima, zeros elsewhere."""
    value, places = r.followed(x), r.followed(indices)
    require(value.dim == 1 and places.dim == 1, "the channels are not in dimension 1")
    r.tie(value.known(), places.known(), f"{r.module or 'the network'} puts them at the places of others")
    return Value(value.known(), 1, value.zero)


# As in pooling, one dimension fewer and the channels would be pooled over.
for space in (1, 2, 3):
    rule(*(f"{kind}_pool{space}d_with_indices" for kind in PLACES), dims=space + 2)(pooled_with_places)
    rule(f"max_unpool{space}d", dims=space + 2)(unpooled)
