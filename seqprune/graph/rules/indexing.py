"""Operators that take a part of a tensor, by slices, numbers and places."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seqprune.graph.channels import IntArray
from seqprune.graph.counts import counts_in, is_part, plain
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, positive, require, rule
from seqprune.graph.values import Value


@rule("getitem", dims=ANY)
def index(r: Recorder, out: torch.Tensor, x: torch.Tensor, key: Any) -> Value:
    """Slices and numbers in other dimensions; the channels are taken whole, or cut in two where a count says."""
    value = r.followed(x)
    parts = list(key) if isinstance(key, tuple) else [key]
    require(all(p is None or p is Ellipsis or type(p) in (int, slice) for p in parts), "indexed by a tensor")
    used = sum(p is not None and p is not Ellipsis for p in parts)
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (x.dim() - used)
    parts += [slice(None)] * x.dim()  # and more, of which nothing is asked
    at = [at for at, part in enumerate(parts) if part is not None][value.dim]
    require(isinstance(parts[at], slice), "picks channels by number")
    taken, before = _taken(r, value.known(), parts[at]), parts[:at]
    for count in counts_in([before, parts[at + 1 :]]):
        count.use()
    return Value(taken, sum(not isinstance(part, int) for part in before), value.zero)


def _taken(r: Recorder, atoms: IntArray, part: slice) -> IntArray:
    """What a slice takes of them: all, and so of fewer; as many as a count or its part says; or the rest behind."""
    start, stop, step = (plain(each, read=False) for each in (part.start, part.stop, part.step))
    counts = counts_in([part])
    if slice(start, stop, step).indices(len(atoms)) == (0, len(atoms), 1):
        for count in counts:
            count.use()
        return atoms
    one_side = (start in (None, 0)) != (stop is None)
    require(len(counts) == 1 and one_side and step in (None, 1), "picks channels by number")
    count, reason = counts[0], f"a section that {r.module or 'the network'} takes by its width"
    front, behind = np.split(atoms, [count.number])
    require(len(front) and len(behind), "takes none of the channels, or all, by their number")
    if is_part(count):
        require(r.is_part_of(atoms, count), "picks channels by a part of others")
        r.balance(np.split(atoms, count.parts), reason)
    else:
        r.counts_equal(front, count.source)
        for section in (front, behind):
            r.balance([section], reason)
    return front if start in (None, 0) else behind


@rule("select", dims=ANY)
def select(r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int, index: Any) -> Value:
    value, dim = r.followed(x), positive(dim, x.dim())
    require(dim != value.dim, "picks channels by number")
    return Value(value.known(), value.dim - (dim < value.dim), value.zero)


@rule("narrow", "index_select", dims=ANY)
def part_of(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int, index: Any = None, *sizes: Any, **named: Any
) -> Value:
    value = r.followed(x)
    require(positive(dim, x.dim()) != value.dim, "picks channels by number")
    return Value(value.known(), value.dim, value.zero)
