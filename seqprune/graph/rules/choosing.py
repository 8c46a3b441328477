"""Operators that compare channels place by place, and those that take one number or the other by what was found."""

from __future__ import annotations

from typing import Any

import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.elementwise import joined, stand_in
from seqprune.graph.rules.table import ANY, require, rule
from seqprune.graph.values import NoRule, Value

COMPARE = "gt lt ge le eq ne greater less greater_equal less_equal not_equal".split()
BOTH = "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor and or xor".split()
ALONE = "logical_not bitwise_not invert isnan isinf isfinite".split()


@rule(*COMPARE, *BOTH, dims=ANY)
def compared(r: Recorder, out: torch.Tensor, x: Any, other: Any) -> Value:
    """What zero is compared to says what becomes of a removed channel: no zero is counted on."""
    value = joined(r, out, x, other, product=True)  # a parameter that is compared stays as it is in a masked network
    return Value(value.known(), value.dim, False, value.steady)


@rule(*ALONE, dims=ANY)
def told(r: Recorder, out: torch.Tensor, x: torch.Tensor) -> Value:
    value = r.followed(x)
    return Value(value.known(), value.dim, False, value.steady)


@rule("where", dims=ANY)
def where(r: Recorder, out: torch.Tensor, condition: torch.Tensor, x: Any = None, other: Any = None) -> Value:
    """Zero where both that it takes from are."""
    if x is None:  # and no other
        raise NoRule("returns places, as many as there are")
    return _taken(r, out, [x, other], condition)


@rule("masked_fill", dims=ANY)
def masked_fill(r: Recorder, out: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, value: Any) -> Value:
    return _taken(r, out, [x, value], mask)


def _taken(r: Recorder, out: torch.Tensor, parts: list[Any], condition: torch.Tensor) -> Value:
    require(any(r.value(part) is not None for part in parts), "chooses among constants")
    value = joined(r, out, *parts, product=False)
    chosen = joined(r, out, stand_in(r, out, value), condition, product=True)  # which adds nothing to them
    return Value(chosen.known(), chosen.dim, value.zero)


@rule("zeros_like", dims=ANY)
def zeros(r: Recorder, out: torch.Tensor, x: torch.Tensor, **kwargs: Any) -> Value:
    """Has as many channels as another tensor, and none of its values."""
    value = r.followed(x)
    return Value(value.known(), value.dim)


@rule("ones_like", "full_like", dims=ANY)
def filled(r: Recorder, out: torch.Tensor, x: torch.Tensor, fill_value: Any = 1, **kwargs: Any) -> Value:
    value = r.followed(x)
    return Value(value.known(), value.dim, zero=False, constant=isinstance(fill_value, int | float))
