"""Operators over space, channel by channel: pooling, resizing, padding, reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.elementwise import addition
from seqprune.graph.rules.table import ANY, positive, require, rule
from seqprune.graph.values import Value

POOLS, EVEN_POOLS = ("avg", "lp"), ("max", "adaptive_max", "adaptive_avg")


def pooling(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """Zeros pool and resize to zeros: maximum pooling pads with minus infinity, which never wins."""
    value = r.followed(x)
    require(value.dim == 1, "the channels are not in dimension 1")
    return Value(value.known(), 1, value.zero)  # a mean over padding makes another number of a constant


def even_pooling(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """Without padding, or with one that never wins: one number everywhere stays that."""
    return replace(pooling(r, out, x), constant=r.followed(x).constant)


# With one dimension fewer than batch, channels and space, torch takes the channels for space and pools over them.
for space in (1, 2, 3):
    rule(*(f"{kind}_pool{space}d" for kind in POOLS), dims=space + 2)(pooling)
    rule(*(f"{kind}_pool{space}d" for kind in EVEN_POOLS), dims=space + 2)(even_pooling)
# torch asks for space
rule("interpolate", "upsample", "upsample_nearest", "upsample_bilinear", dims=ANY)(even_pooling)


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


@rule("nansum", dims=ANY)
def reduction(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Value:
    return _reduced(r, x, dim, keepdim)


@rule("mean", "nanmean", "amax", "amin", dims=ANY)
def even_reduction(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Value:
    return replace(_reduced(r, x, dim, keepdim), constant=r.followed(x).constant)


@rule("sum", dims=ANY)
def total(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Value:
    """Over channels too: those that are zero add nothing, and no channel lies in what comes of it."""
    return _added_up(r, out, x, dim, keepdim)


def _added_up(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any, keepdim: bool) -> Value:
    value = r.followed(x)
    if dim is None or not out.dim() or not value.zero:
        return _reduced(r, x, dim, keepdim)
    dims = {positive(d, x.dim()) for d in ([dim] if isinstance(dim, int) else dim)}
    return r.without_channels(out) if value.dim in dims else _reduced(r, x, dim, keepdim)


@rule("std", "var", "std_mean", "var_mean", dims=ANY)
def deviation(
    r: Recorder, out: Any, x: torch.Tensor, dim: Any = None, *args: Any, **kwargs: Any
) -> Value | list[Value]:
    """Over space; a first argument that is true or false says that it is over all dimensions."""
    require(not isinstance(dim, bool), "reduces over channels")
    made = [out] if isinstance(out, torch.Tensor) else list(out)
    return [_reduced(r, x, dim, each.dim() == x.dim()) for each in made]


@rule("norm", dims=ANY)
def norm(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **_: Any
) -> Value:
    return _normed(r, out, x, p, dim, keepdim)


@rule("linalg_vector_norm", "vector_norm", dims=ANY)
def vector_norm(
    r: Recorder,
    out: torch.Tensor,
    x: torch.Tensor,
    ord: Any = 2,  # noqa: A002 - torch's own name
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Value:
    return _normed(r, out, x, ord, dim, keepdim)


def _normed(r: Recorder, out: torch.Tensor, x: torch.Tensor, p: Any, dim: Any, keepdim: bool) -> Value:
    """Over channels too, as a sum of them is: to any such norm zeros add nothing."""
    require(p in ("fro", None) or (isinstance(p, int | float) and p >= 0), "is no norm that is zero at zero")
    return _added_up(r, out, x, dim, keepdim)


@rule("logsumexp", dims=ANY)
def logsumexp(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> Value:
    value = _reduced(r, x, dim, keepdim)
    return Value(value.known(), value.dim, zero=False)


@rule("cumsum", "cumprod", "cummax", "cummin", dims=ANY)
def running(r: Recorder, out: Any, x: torch.Tensor, dim: int, **kwargs: Any) -> Value | list[Value]:
    """Sums and products so far along another dimension, or extremes and where they lie."""
    value = r.followed(x)
    require(positive(dim, x.dim()) != value.dim, "mixes channels")
    kept = Value(value.known(), value.dim, value.zero)
    return kept if isinstance(out, torch.Tensor) else [kept, Value(value.known(), value.dim, zero=False)]


@rule("sort", dims=ANY)
def ordered(r: Recorder, out: Any, x: torch.Tensor, dim: int = -1, *args: Any, **kwargs: Any) -> list[Value]:
    """Along another dimension, and where they lay."""
    return running(r, out, x, dim)  # type: ignore[return-value]


@rule("topk", dims=ANY)
def greatest(r: Recorder, out: Any, x: torch.Tensor, k: int, dim: int = -1, *args: Any, **kwargs: Any) -> list[Value]:
    return running(r, out, x, dim)  # type: ignore[return-value]


@rule("median", dims=ANY)
def median(r: Recorder, out: Any, x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> list[Value]:
    value = _reduced(r, x, dim, keepdim)
    return [value, Value(value.known(), value.dim, zero=False)]


@rule("layer_norm", dims=ANY)
def layer_norm(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - torch's own name
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Value:
    """Over space alone: of each channel by itself."""
    value = r.followed(input)
    require(value.dim < input.dim() - len(normalized_shape), "normalises all channels as one")
    r.foreign((weight, bias), "layer_norm")
    return Value(value.known(), value.dim, value.zero and bias is None)


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
