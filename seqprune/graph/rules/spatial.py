"""Operators over space, channel by channel: pooling, resizing, padding, reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import positive, require, rule
from seqprune.graph.values import Value


@rule(
    *(f"{kind}_pool{n}d" for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)),
    "interpolate",
    "upsample",
    "upsample_nearest",
    "upsample_bilinear",
)
def pooling(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """Zeros pool and resize to zeros: maximum pooling pads with minus infinity, which never wins."""
    value = r.followed(x)
    require(isinstance(out, torch.Tensor), "returns indices")
    require(value.dim == 1 and x.dim() == out.dim() >= 3, "the channels are not in dimension 1")
    return value


@rule("pad")
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
    return Value(channels.known(), channels.dim, channels.zero and (mode != "constant" or not value))


def _reach(pad: Sequence[int], x: torch.Tensor, dim: int) -> Sequence[int]:
    """The padding of ``dim``: pairs count from the last dimension."""
    start = 2 * (x.dim() - 1 - dim)
    return pad[start : start + 2]


@rule("mean", "sum", "amax", "amin")
def reduction(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Value:
    value = r.followed(x)
    require(dim is not None, "reduces over channels")
    dims = {positive(d, x.dim()) for d in ([dim] if isinstance(dim, int) else dim)}
    require(value.dim not in dims, "reduces over channels")
    shift = 0 if keepdim else sum(d < value.dim for d in dims)
    return Value(value.known(), value.dim - shift, value.zero)
