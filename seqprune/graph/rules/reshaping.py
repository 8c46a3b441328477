"""Operators that move or merge dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import positive, require, rule
from seqprune.graph.values import Value

VIEWS = frozenset("view reshape unsqueeze getitem".split())


def views_one_dimension(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> bool:
    """Whether a tensor with one dimension is put into others of size one, in a way that holds for any length."""
    x, shape = args[0], _as_sizes(args[1:])
    if kwargs or not isinstance(x, torch.Tensor) or x.dim() != 1 or out.numel() != len(x) or len(x) < 2:
        return False
    if len(args) == 2 and not isinstance(args[1], int):  # x[None, :, None]
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        if all(p is None or p == slice(None) for p in parts):
            return True
    return shape.count(-1) == 1 and all(s in (1, -1) for s in shape)


@rule("flatten")
def flatten(r: Recorder, out: torch.Tensor, x: torch.Tensor, start_dim: int = 0, end_dim: int = -1) -> Value:
    value = r.followed(x)
    start, end = positive(start_dim, x.dim()), positive(end_dim, x.dim())
    if not start <= value.dim <= end:
        shift = end - start if value.dim > end else 0
        return Value(value.known(), value.dim - shift, value.zero)
    shape = tuple(x.shape[start : end + 1])
    along = [1] * len(shape)
    along[value.dim - start] = -1
    atoms = np.broadcast_to(value.known().reshape(along), shape).ravel()
    return Value(atoms, start, value.zero)


@rule("view", "reshape")
def view(r: Recorder, out: torch.Tensor, x: torch.Tensor, *shape: Any, **kwargs: Any) -> Value:
    """Followed only where the network left the channels to be worked out with -1, or flattens them whole."""
    value = r.followed(x)
    asked = _as_sizes(kwargs.get("shape", shape))
    require(asked, "changes the type, not the shape")
    lead = value.dim
    require(
        -1 in asked and tuple(out.shape[:lead]) == tuple(x.shape[:lead]) and asked.index(-1) == lead,
        "the channel count is written out in the new shape",
    )
    if tuple(out.shape[lead + 1 :]) == tuple(x.shape[lead + 1 :]):
        return value
    require(out.dim() == lead + 1, "cuts the channels into heads or groups")
    atoms = np.repeat(value.known(), int(np.prod(x.shape[lead + 1 :])))
    return Value(atoms, lead, value.zero)


@rule("transpose", "swapaxes", "swapdims")
def transpose(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim0: int, dim1: int) -> Value:
    order = list(range(x.dim()))
    dim0, dim1 = positive(dim0, x.dim()), positive(dim1, x.dim())
    order[dim0], order[dim1] = dim1, dim0
    return _permuted(r, x, order)


@rule("permute")
def permute(r: Recorder, out: torch.Tensor, x: torch.Tensor, *dims: Any, **kwargs: Any) -> Value:
    return _permuted(r, x, [positive(d, x.dim()) for d in _as_sizes(kwargs.get("dims", dims))])


def _permuted(r: Recorder, x: torch.Tensor, order: Sequence[int]) -> Value:
    value = r.followed(x)
    return Value(value.known(), list(order).index(value.dim), value.zero)


@rule("unsqueeze")
def unsqueeze(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int) -> Value:
    value = r.followed(x)
    return Value(value.known(), value.dim + (positive(dim, out.dim()) <= value.dim), value.zero)


@rule("squeeze")
def squeeze(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None) -> Value:
    value = r.followed(x)
    require(dim is not None, "drops dimensions by their size")
    dims = {positive(d, x.dim()) for d in ([dim] if isinstance(dim, int) else dim)}
    dropped = {d for d in dims if x.shape[d] == 1}
    require(value.dim not in dims, "may drop the channels")
    return Value(value.known(), value.dim - sum(d < value.dim for d in dropped), value.zero)


@rule("getitem")
def index(r: Recorder, out: torch.Tensor, x: torch.Tensor, key: Any) -> Value:
    """Slices and numbers in other dimensions; the channels themselves must be taken whole."""
    value = r.followed(x)
    parts = list(key) if isinstance(key, tuple) else [key]
    require(all(p is None or p is Ellipsis or isinstance(p, int | slice) for p in parts), "indexed by a tensor")
    used = sum(p is not None and p is not Ellipsis for p in parts)
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (x.dim() - used)
    parts += [slice(None)] * (x.dim() - sum(p is not None for p in parts))
    source = target = 0
    for part in parts:
        if source == value.dim and part is not None:
            require(part == slice(None), "picks channels by number")
            return Value(value.known(), target, value.zero)
        source += part is not None
        target += not isinstance(part, int)
    raise AssertionError("every dimension of the tensor is met above")


@rule("unbind")
def unbind(r: Recorder, out: Sequence[torch.Tensor], x: torch.Tensor, dim: int = 0) -> list[Value]:
    value = r.followed(x)
    dim = positive(dim, x.dim())
    require(dim != value.dim, "takes the channels apart one by one")
    return [Value(value.known(), value.dim - (dim < value.dim), value.zero)] * len(out)


def _as_sizes(sizes: Any) -> tuple[int, ...]:
    """``view(2, 3)`` and ``view((2, 3))`` alike; empty where the argument is no shape."""
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = sizes[0]
    return tuple(sizes) if all(isinstance(s, int) for s in sizes) else ()
