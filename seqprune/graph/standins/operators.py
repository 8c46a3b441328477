"""Operators that stand-ins are written in; each has a rule in ``seqprune/graph/rules/heads.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.overrides import handle_torch_function, has_torch_function

Operator = TypeVar("Operator", bound=Callable[..., Any])


def watched(function: Operator) -> Operator:
    """Shows the call to a trace as one, not what happens inside it."""

    @wraps(function)
    def call(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function((x,)):
            return handle_torch_function(call, (x,), x, *args, **kwargs)
        return function(x, *args, **kwargs)

    return call  # type: ignore[return-value]


@watched
def attend_heads(
    x: torch.Tensor, heads: int, key: int, value: int, scale: float, area: int, held: Mapping[str, str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of every position to every other, head by head.

    Args:
        x: ``[batch, heads * (2 key + value), height, width]``, in each head queries, keys and values.
        heads: number of heads.
        key: channels of the queries, and of the keys, of one head.
        value: channels of the values of one head.
        scale: factor of the products of queries and keys.
        area: parts of the image, by rows, that attend to themselves alone.
        held: attributes of the module that hold widths, by what they count: ``heads``, ``value``, or ``values`` of
            all heads.

    Returns:
        The attended values and the values, ``[batch, heads * value, height, width]`` each.
    """
    batch, _, height, width = x.shape
    parts = x.flatten(2).transpose(1, 2).reshape(batch * area, -1, heads * (2 * key + value))
    heads_apart = parts.view(*parts.shape[:2], heads, 2 * key + value).permute(0, 2, 3, 1)
    q, k, v = torch.split(heads_apart, [key, key, value], dim=2)
    weights = ((q * scale).transpose(-2, -1) @ k).softmax(dim=-1)
    attended = v @ weights.transpose(-2, -1)
    a, b = (
        t.permute(0, 3, 1, 2).reshape(batch, height, width, heads * value).permute(0, 3, 1, 2).contiguous()
        for t in (attended, v)
    )
    return a, b


@watched
def as_wide_as(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``x``, of which the module's code takes for granted that it has as many channels as ``other``."""
    return x.clone()


@watched
def gate_heads(x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """``x`` ``[batch, heads * channels, height, width]`` times ``gates`` ``[batch, heads, height, width]``."""
    batch, heads, height, width = gates.shape
    return (x.view(batch, heads, -1, height, width) * gates.unsqueeze(2)).view(batch, -1, height, width)


@watched
def split_sizes(x: torch.Tensor, sizes: list[int], attribute: str) -> tuple[torch.Tensor, ...]:
    """``x`` cut into ``sizes`` channels, a list that the module holds in ``attribute``."""
    parts: tuple[torch.Tensor, ...] = torch.split(x, sizes, dim=1)
    return parts
