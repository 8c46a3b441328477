"""Operators of the stand-ins: heads, and widths that modules hold in attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, require, rule
from seqprune.graph.values import NoRule, Value


@rule("attend_heads", dims=4)
def attend_heads(
    r: Recorder,
    out: tuple[torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    heads: int,
    key: int,
    value: int,
    scale: float,
    area: int,
    held: Mapping[str, str],
) -> list[Value]:
    """Removed values attend to zeros and stay zero. Queries and keys must stay, since exporters scale by their width.

    Where ``heads`` is held in an attribute, heads stay or go as a whole; else they keep equally many values.
    """
    channels = r.followed(x)
    require(channels.dim == 1 and channels.zero, "attends to channels that are not zero once removed")
    parts = channels.known().reshape(heads, 2 * key + value)
    values = parts[:, 2 * key :]
    if "heads" in held:
        first = np.repeat(parts[:, :1], parts.shape[1], axis=1)
        r.tie(first, parts, f"in one attention head of {r.module} with channels that cannot be removed")
        r.width(held["heads"], parts[:, 0])
        if "values" in held:
            r.width(held["values"], values)
    else:
        r.pin(parts[:, : 2 * key], f"queries and keys of {r.module}: exporters scale by their width")
        r.balance(list(values), f"values of the {heads} heads of {r.module}")
        r.width(held["value"], values[0])
    return [Value(values.ravel())] * 2


@rule("as_wide_as", dims=ANY)
def as_wide_as(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> Value:
    value, wide = r.followed(x), r.followed(other)
    r.balance((value.known(), wide.known()), f"{r.module} gives its values the shape of its input")
    return value


@rule("gate_heads", dims=4, opaque=True)
def gate_heads(r: Recorder, out: torch.Tensor, x: torch.Tensor, gates: torch.Tensor) -> Value:
    value, gate = r.followed(x), r.value(gates)
    heads = gates.shape[1]
    if gate is not None and gate.atoms is not None:
        r.pin(gate.atoms, f"{r.module} has a gate for each of its {heads} heads")
    r.balance(list(value.known().reshape(heads, -1)), f"channels of the {heads} heads of {r.module}")
    return Value(value.known(), value.dim, value.zero)


@rule("split_sizes", dims=ANY)
def split_sizes(
    r: Recorder, out: tuple[torch.Tensor, ...], x: torch.Tensor, sizes: list[int], attribute: str
) -> list[Value]:
    value = r.followed(x)
    require(value.dim == 1, "the channels are not in dimension 1")
    sections = np.split(value.known(), np.cumsum(sizes)[:-1])
    for section in sections:
        r.balance([section], f"a section that {r.module} splits off")
    r.width(attribute, *sections, many=True)
    return [Value(section, 1, value.zero) for section in sections]


@rule("channel_shuffle", "native_channel_shuffle", dims=ANY)
def channel_shuffle(r: Recorder, out: torch.Tensor, x: torch.Tensor, groups: int, *args: Any) -> Value:
    """Channels dealt out in turn, so the sections they come from lose the same ones: else their order would change."""
    value = r.followed(x)
    require(value.dim == 1, "the channels are not in dimension 1")
    sections = value.known().reshape(groups, -1)
    for section in sections[1:]:
        r.tie(sections[0], section, f"shuffled in {r.module or 'the network'} with channels that cannot be removed")
    return Value(sections.T.ravel(), 1, value.zero)


@rule("scripted", dims=ANY, opaque=True)
def scripted(r: Recorder, out: Any, given: Any, module: Any) -> Value:
    """A ScriptModule may write into what it is given, so all that shares memory with it stays."""
    why = "what a ScriptModule computes cannot be watched; build the network with the plain module"
    for tensor in r.tracked(given):
        r.pin_storage(tensor, "a ScriptModule")
    raise NoRule(why)
