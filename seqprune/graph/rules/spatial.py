"""Operators over space, channel by channel: pooling, resizing, padding, reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.elementwise import addition
from seqprune.graph.rules.table import ANY, positive, require, rule
from seqprune.graph.values import Value

POOLS = ("max", "avg", "lp", "adaptive_max", "adaptive_avg")


def pooling(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """Zeros pool and resize to zeros: maximum pooling pads with minus infinity, which never wins."""
    value = r.followed(x)
    require(isinstance(out, torch.Tensor), "returns indices")
    require(value.dim == 1 and x.dim() == out.dim(), "the channels are not in dimension 1")
    return Value(value.known(), 1, value.zero)  # a mean over padding makes another number of a constant


# With one dimension fewer than batch, channels and space, torch takes the channels for space and pools over them.
for space in (1, 2, 3):
    rule(*(f"{kind}_pool{space}d" for kind in POOLS), dims=space + 2)(pooling)
rule("interpolate", "upsample", dims=range(3, 6))(pooling)
rule("upsample_nearest", "upsample_bilinear", dims=range(4, 6))(pooling)


@rule("pad", dims=ANY)
def padding(
    r: Recorder,
    out: torch.Tensor,
    x: torch.Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    channels = r.followed(x)
    require(not any(_reach(pad, x, channels.dim)), "pads channels")
    return Value(channels.known(), channels.dim, channels.zero and not value, channels.constant and mode != "constant")


def _reach(pad: Sequence[int], x: torch.Tensor, dim: int) -> Sequence[int]:
    """The padding of ``dim``: pairs count from the last dimension."""
    start = 2 * (x.dim() - 1 - dim)
    return pad[start : start + 2]


@rule("mean", "sum", "amax", "amin", dims=ANY)
def reduction(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Value:
    return _reduced(r, x, dim, keepdim)


def _reduced(r: Recorder, x: torch.Tensor, dim: Any, keepdim: bool) -> Value:
    value = r.followed(x)
    require(dim is not None, "reduces over channels")
    dims = {positive(d, x.dim()) for d in ([dim] if isinstance(dim, int) else dim)}
    require(dims and value.dim not in dims, "reduces over channels")  # no dimensions are all of them
    shift = 0 if keepdim else sum(d < value.dim for d in dims)
    return Value(value.known(), value.dim - shift, value.zero)


@rule("max", "min", dims=ANY)
def extreme(
    r: Recorder, out: Any, x: torch.Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None
) -> Value | list[Value]:
    """Of two tensors element by element, or the extremes along a dimension and where they lie."""
    if isinstance(out, torch.Tensor):
        return addition(r, out, x, dim if other is None else other)
    value = _reduced(r, x, dim, keepdim)
    return [value, Value(value.known(), value.dim, zero=False)]
