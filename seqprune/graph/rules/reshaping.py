"""Operators that move or merge dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seqprune.graph.channels import IntArray
from seqprune.graph.computed import one_for_each
from seqprune.graph.counts import Part, counts_in, is_count, is_part, sizes_of
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, positive, require, rule
from seqprune.graph.values import NoRule, Value

_WRITTEN = "the channel count is written out in the new shape"
VIEWS = frozenset("view reshape unsqueeze getitem".split())
# Their rules know what becomes of a number of channels that the code hands to them, or of a part of it.
FOLLOWS_COUNTS = frozenset(
    [
        *"view reshape expand split split_with_sizes getitem group_norm".split(),
        *(f"conv{kind}{space}d" for kind in ("", "_transpose") for space in (1, 2, 3)),
    ]
)


def views_one_dimension(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> bool:
    """Whether numbers along one dimension are put among others of size one, in a way that holds for any length."""
    x, shape = args[0], sizes_of(args[1:])
    along_one = x.dim() == 1 or one_for_each(x)
    if name == "unsqueeze":
        return along_one
    if kwargs or not along_one or out.numel() != x.numel():
        return False
    if name == "getitem":  # x[None, :, None]
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        return all(p is None or p is Ellipsis or (isinstance(p, slice) and p == slice(None)) for p in parts)
    lengths = [size for size in shape if is_count(size) or size == -1]
    return x.dim() == 1 and len(lengths) == 1 and all(size == 1 for size in shape if size is not lengths[0])


@rule("flatten", dims=ANY)
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
    return Value(atoms, start, value.zero, value.constant)


@rule("view", "reshape", dims=ANY)
def view(r: Recorder, out: torch.Tensor, x: torch.Tensor, *shape: Any, **kwargs: Any) -> Value:
    return _viewed(r, out, x, sizes_of(kwargs.get("shape", shape)))


def _viewed(r: Recorder, out: torch.Tensor, x: torch.Tensor, asked: Sequence[Any]) -> Value:
    """Followed where the network leaves the channels to be worked out with -1, or hands on their own number, or a part.

    What lies before the channels in memory stays before them, and what lies behind them behind.
    """
    value = r.followed(x)
    require(asked, "changes the type, not the shape")
    before, inner = (math.prod(sizes) for sizes in (x.shape[: value.dim], x.shape[value.dim + 1 :]))
    sizes = [math.prod(out.shape[:at]) for at in range(out.dim() + 1)]
    places = [at for at in range(out.dim()) if is_place(asked[at])]
    whole = [at for at in places if _ends(sizes, at, inner)]
    first = [at for at in places if sizes[at] == before]
    alone = [at for at in whole if 0 in (sizes[at] % before, before % sizes[at])]
    # A number is of groups rather than of all channels where another place is left for them.
    at = next(iter((*(at for at in first if at in whole), *alone, *first)), None)
    if at is None:
        raise NoRule("another number of channels takes their place" if counts_in(asked) else _WRITTEN)
    use_others(asked, at)
    if sizes[at] == before:
        atoms = _joined(r, value, inner, sizes[-1] // sizes[at + 1])
    else:
        atoms = _grouped(r, value, before, sizes[at])
    if is_count(asked[at]) and at in whole:
        r.tie_counted(atoms, asked[at].source)
    elif is_count(asked[at]):
        r.counts_agree(atoms, asked[at].source, r.module)
    elif is_part(asked[at]):
        _parted(r, value.known(), asked[at])
    return Value(atoms, at, value.zero)


def _parted(r: Recorder, atoms: IntArray, part: Part) -> None:
    """As many are counted as are viewed, or as each third of them, as of queries, keys and values in one."""
    require(len(atoms) % part.whole == 0, "a part of another number of channels takes their place")
    for section in np.split(atoms, len(atoms) // part.whole):
        r.counts_agree(section, part.source, r.module)


def _joined(r: Recorder, value: Value, inner: int, behind: int) -> IntArray:
    """The channels with a part of what lies behind them, or without it: groups, which stay or go as a whole."""
    if behind % inner:
        require(inner % behind == 0, "cuts the channels into heads or groups")
        return np.repeat(value.known(), inner // behind)
    groups = value.known().reshape(-1, behind // inner)  # [B, -1, D]
    for each in groups.T[1:]:
        r.tie(groups[:, 0], each, f"in one group that {r.module or 'the network'} makes of them")
    return groups[:, 0]


def _ends(sizes: Sequence[int], at: int, inner: int) -> bool:
    """Whether as much lies behind a place of a new shape as behind the channels before."""
    return sizes[-1] == sizes[at + 1] * inner


def _grouped(r: Recorder, value: Value, before: int, now: int) -> IntArray:
    """``[B, G, -1, ...]``: groups one after the other, as heads of attention, which lose the same; or back again.

    ``before`` and ``now`` are how many numbers lay, and lie, in front of the channels.
    """
    if now < before:
        return np.tile(value.known(), before // now)
    atoms, *others = value.known().reshape(now // before, -1)
    for group in others:
        r.tie(atoms, group, f"in one of the groups that {r.module or 'the network'} makes of them")
    return atoms


def is_place(size: Any) -> bool:
    """Whether a size of a shape follows the channels: their number, a part of it, or what is left over."""
    return is_count(size) or is_part(size) or size == -1


def use_others(asked: Sequence[Any], at: int) -> None:
    """Numbers that are handed to a call for anything but its channels, which stand at ``at``."""
    for count in counts_in([size for place, size in enumerate(asked) if place != at]):
        count.use()


@rule("view_as", "reshape_as", dims=ANY)
def view_as(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> Value:
    value, lender = r.followed(x), r.value(other)
    if lender is None or math.prod(out.shape[: lender.dim]) != math.prod(x.shape[: value.dim]):
        raise NoRule("takes the shape of a tensor with its channels elsewhere")
    require(out.shape[lender.dim] == len(value.known()), "takes the shape of a tensor with other channels")
    r.tie(value.known(), lender.known(), "takes its shape")
    return Value(value.known(), lender.dim, value.zero)


@rule("expand", dims=ANY)
def expand(r: Recorder, out: torch.Tensor, x: torch.Tensor, *shape: Any, **kwargs: Any) -> Value:
    """Spreads over other dimensions; the channels stay as they are, by -1 or by their own number."""
    value = r.followed(x)
    asked = sizes_of(kwargs.get("size", shape))
    dim = value.dim + out.dim() - x.dim()
    require(out.shape[dim] == len(value.known()), "spreads one channel over many")
    require(is_count(asked[dim]) or asked[dim] == -1, _WRITTEN)
    use_others(asked, dim)
    if is_count(asked[dim]):
        r.tie_counted(value.known(), asked[dim].source)
    return Value(value.known(), dim, value.zero)


@rule("transpose", "swapaxes", "swapdims", dims=ANY)
def transpose(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim0: int, dim1: int) -> Value:
    order = list(range(x.dim()))
    dim0, dim1 = positive(dim0, x.dim()), positive(dim1, x.dim())
    order[dim0], order[dim1] = dim1, dim0
    return _permuted(r, x, order)


@rule("T", "t", "H", "mT", "mH", "adjoint", dims=ANY)
def turned(r: Recorder, out: torch.Tensor, x: torch.Tensor) -> Value:
    """The last two dimensions swapped, of which one that has a single dimension has none."""
    require(out.shape[:-2] == x.shape[:-2], "turns all dimensions round")
    return _permuted(r, x, [*range(x.dim() - 2), *range(x.dim())[-2:][::-1]])


@rule("permute", dims=ANY)
def permute(r: Recorder, out: torch.Tensor, x: torch.Tensor, *dims: Any, **kwargs: Any) -> Value:
    return _permuted(r, x, [positive(d, x.dim()) for d in sizes_of(kwargs.get("dims", dims))])


@rule("movedim", "moveaxis", dims=ANY)
def movedim(r: Recorder, out: torch.Tensor, x: torch.Tensor, source: Any, destination: Any) -> Value:
    numbered = np.empty(range(x.dim()))  # a dimension of size n is the n-th: the first is empty, no memory is taken
    return _permuted(r, x, list(np.moveaxis(numbered, source, destination).shape))


def _permuted(r: Recorder, x: torch.Tensor, order: Sequence[int]) -> Value:
    value = r.followed(x)
    return Value(value.known(), list(order).index(value.dim), value.zero)


@rule("unsqueeze", dims=ANY)
def unsqueeze(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int) -> Value:
    value = r.followed(x)
    return Value(value.known(), value.dim + (positive(dim, out.dim()) <= value.dim), value.zero)


@rule("squeeze", dims=ANY)
def squeeze(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: Any = None) -> Value:
    value = r.followed(x)
    if dim is None:  # where one channel stayed alone, it would lose its dimension
        require(x.shape[value.dim] > 1, "drops the channels")
        r.pin(value.known()[:2], f"{r.module or 'the network'} drops dimensions of size one, so two channels stay")
        dims = {*range(x.dim())} - {value.dim}
    else:
        dims = {positive(d, x.dim()) for d in ([dim] if isinstance(dim, int) else dim)}
    dropped = {d for d in dims if x.shape[d] == 1}
    require(value.dim not in dims, "may drop the channels")
    return Value(value.known(), value.dim - sum(d < value.dim for d in dropped), value.zero)


@rule("flip", dims=ANY)
def flip(r: Recorder, out: torch.Tensor, x: torch.Tensor, *dims: Any, **kwargs: Any) -> Value:
    value = r.followed(x)
    turned = {positive(d, x.dim()) for d in sizes_of(kwargs.get("dims", dims))}
    require(value.dim not in turned, "turns the channels round")
    return value


@rule("roll", dims=ANY)
def roll(r: Recorder, out: torch.Tensor, x: torch.Tensor, shifts: Any, dims: Any = ()) -> Value:
    value = r.followed(x)
    moved = {positive(d, x.dim()) for d in ([dims] if isinstance(dims, int) else dims)}
    require(moved and value.dim not in moved, "moves the channels on")  # no dimensions are all of them
    return value


@rule("pixel_shuffle", dims=ANY)
def pixel_shuffle(r: Recorder, out: torch.Tensor, x: torch.Tensor, upscale_factor: int) -> Value:
    """As many channels as a square of pixels holds become one."""
    value = r.followed(x)
    require(value.dim == x.dim() - 3, "spreads over space what are no channels")
    ones = value.known().reshape(-1, upscale_factor**2)
    for other in ones.T[1:]:
        r.tie(ones[:, 0], other, "becomes one channel with others")
    return Value(ones[:, 0], value.dim, value.zero)


@rule("pixel_unshuffle", dims=ANY)
def pixel_unshuffle(r: Recorder, out: torch.Tensor, x: torch.Tensor, downscale_factor: int) -> Value:
    value = r.followed(x)
    require(value.dim == x.dim() - 3, "makes channels of what are none")
    return Value(np.repeat(value.known(), downscale_factor**2), value.dim, value.zero, value.constant)


@rule("unflatten", dims=ANY)
def unflatten(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int, sizes: Sequence[int]) -> Value:
    """Another dimension taken apart, or the channels into groups, of which one number is left to be worked out."""
    value, dim = r.followed(x), positive(dim, x.dim())
    if dim == value.dim:
        return _viewed(r, out, x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))
    return Value(value.known(), value.dim + (len(sizes) - 1) * (dim < value.dim), value.zero)


@rule("unbind", dims=ANY)
def unbind(r: Recorder, out: Sequence[torch.Tensor], x: torch.Tensor, dim: int = 0) -> list[Value]:
    value = r.followed(x)
    dim = positive(dim, x.dim())
    require(dim != value.dim, "takes the channels apart one by one")
    return [Value(value.known(), value.dim - (dim < value.dim), value.zero)] * len(out)
