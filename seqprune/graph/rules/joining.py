"""Operators that put channels side by side or take them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from seqprune.graph import widths
from seqprune.graph.channels import IntArray
from seqprune.graph.counts import counts_in, is_count, is_part, plain, sizes_of
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, positive, require, rule
from seqprune.graph.values import FIXED, NoRule, Value


@rule("cat", "concat", "concatenate", dims=ANY, opaque=True)
def concatenate(r: Recorder, out: torch.Tensor, tensors: Sequence[torch.Tensor], dim: int = 0) -> Value:
    dim = positive(dim, out.dim())
    values = [r.value(t) for t in tensors]
    r.foreign([t for t, v in zip(tensors, values, strict=True) if v is None], "cat")
    followed = [v for v in values if v is not None and not v.opaque]
    require(followed, "joins channels that were not followed")
    require(len({v.dim for v in followed}) == 1, "the channels of the parts lie in different dimensions")
    zero = all(v.zero for v in followed)
    if dim == followed[0].dim:
        # torch takes an empty list of numbers for a part of any shape
        parts = [_atoms_along(v, t, dim) for v, t in zip(values, tensors, strict=True) if t.dim() == out.dim()]
        return Value(np.concatenate(parts), dim, zero, all(v.steady for v in followed))
    return _side_by_side(r, values, followed, followed[0].dim, zero)


@rule("stack", dims=ANY)
def stack(r: Recorder, out: torch.Tensor, tensors: Sequence[torch.Tensor], dim: int = 0) -> Value:
    dim = positive(dim, out.dim())
    values = [r.value(t) for t in tensors]
    r.foreign([t for t, v in zip(tensors, values, strict=True) if v is None], "stack")
    followed = [v for v in values if v is not None]
    require(len({v.dim for v in followed}) == 1, "the channels of the parts lie in different dimensions")
    shifted = followed[0].dim + (dim <= followed[0].dim)
    return _side_by_side(r, values, followed, shifted, all(v.zero for v in followed))


def _atoms_along(value: Value | None, tensor: torch.Tensor, dim: int) -> IntArray:
    if value is None or value.atoms is None:
        return np.full(tensor.shape[dim], FIXED)
    return value.atoms


def _side_by_side(
    r: Recorder, values: Sequence[Value | None], followed: Sequence[Value], dim: int, zero: bool
) -> Value:
    """Joined along another dimension: the channels of all parts lie over each other."""
    first = followed[0].known()
    reason = f"lies beside channels that cannot be removed in {r.module or 'the network'}"
    for value in followed[1:]:
        r.tie(first, value.known(), reason)
    if len(followed) < len(values):
        r.pin(first, reason)
    return Value(first, dim, zero)


@rule("repeat", "tile", dims=ANY)
def repeat(r: Recorder, out: torch.Tensor, x: torch.Tensor, *times: Any, **kwargs: Any) -> Value:
    """Side by side, the channels one after the other as often; new dimensions come in front."""
    value = r.followed(x)
    asked = sizes_of(kwargs.get("repeats", kwargs.get("dims", times)))
    dim = value.dim + out.dim() - x.dim()
    at = len(asked) - (x.dim() - value.dim)  # tile may name fewer, the last ones
    return Value(np.tile(value.known(), asked[at] if at >= 0 else 1), dim, value.zero)


@rule("repeat_interleave", dims=ANY)
def repeat_interleave(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, repeats: Any, dim: int | None = None, **kwargs: Any
) -> Value:
    value = r.followed(x)
    if dim is None:
        raise NoRule("makes one dimension of all")
    if positive(dim, x.dim()) != value.dim:
        return Value(value.known(), value.dim, value.zero)
    require(isinstance(repeats, int), "repeats channels by a tensor of numbers")
    return Value(np.repeat(value.known(), repeats), value.dim, value.zero)


@rule("chunk", dims=ANY)
def chunk(r: Recorder, out: Sequence[torch.Tensor], x: torch.Tensor, chunks: int, dim: int = 0) -> list[Value]:
    value = r.followed(x)
    if positive(dim, x.dim()) != value.dim:
        return [value] * len(out)
    require(x.shape[value.dim] % chunks == 0, "chunks of different sizes")
    return _sections(r, value, len(out), f"{r.module} takes them apart with chunk({chunks})")


@rule("split", "split_with_sizes", dims=ANY)
def split(r: Recorder, out: Sequence[torch.Tensor], x: torch.Tensor, size: Any, dim: int = 0) -> list[Value]:
    value = r.followed(x)
    if positive(plain(dim), x.dim()) != value.dim:
        for count in counts_in(size):
            count.use()
        return [value] * len(out)
    sizes = [part.shape[value.dim] for part in out]
    size = _one(size)
    if is_part(size):
        require(r.is_part_of(value.known(), size), "splits channels by a part of others")
        return _sections(r, value, len(out), f"{r.module or 'the network'} splits them by a part of their number")
    if counts_in(size):
        return _counted_sections(r, value, sizes, size)
    require(len(set(sizes)) == 1 and _held_in_attribute(r, sizes[0]), "the split sizes are numbers in the code")
    return _sections(r, value, len(out), f"{r.module} splits them by a width it holds")


@rule("glu", dims=ANY)
def gated_linear_unit(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int = -1) -> Value:
    """One half times the sigmoid of the other."""
    value = r.followed(x)
    if positive(dim, x.dim()) != value.dim:
        return Value(value.known(), value.dim, value.zero)
    reason = f"{r.module or 'the network'} weighs one half of them by the other"
    one, other = _sections(r, value, 2, reason)
    r.tie(one.known(), other.known(), reason)
    return one


def _counted_sections(r: Recorder, value: Value, sizes: list[int], size: Any) -> list[Value]:
    """Each section stays as wide as the number it was asked by; those of plain numbers stay whole."""
    sections = np.split(value.known(), np.cumsum(sizes)[:-1])
    asked = [size] * len(sizes) if is_count(size) else list(size)
    require(not is_count(size) or len(set(sizes)) == 1, "the last section is smaller")
    for section, number in zip(sections, asked, strict=True):
        if is_count(number):
            r.counts_equal(section, number.source)
            r.balance([section], f"a section that {r.module or 'the network'} splits off")
        else:
            plain(number)  # which is used where it is a part of others
            r.pin(section, "the split sizes are numbers in the code")
    return [Value(section, value.dim, value.zero) for section in sections]


def _one(size: Any) -> Any:
    """``[c // 2, c // 2]`` as the one part that it names as often as there are."""
    if not isinstance(size, list | tuple):
        return size
    named = {(id(each.source), each.parts) if is_part(each) else id(each) for each in size}
    return size[0] if len(named) == 1 else size


def _held_in_attribute(r: Recorder, size: int) -> bool:
    """Whether surgery knows the attribute of the running module that holds this width, and updates it."""
    module = r.own
    held = [vars(module).get(name) for name in widths.held(module)]
    return any(type(number) is int and number == size for number in held)  # a count would have come as one


def _sections(r: Recorder, value: Value, count: int, reason: str) -> list[Value]:
    sections = np.split(value.known(), count)
    r.balance(sections, reason)
    return [Value(section, value.dim, value.zero) for section in sections]
