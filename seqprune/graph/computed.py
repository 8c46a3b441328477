"""Tensors that a network works out from its own parameters and buffers, with one number for each channel.

A batch normalisation written out by hand multiplies by ``weight * (running_var + eps).rsqrt()``: where channels leave,
they leave everything that was worked with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seqprune.graph.values import tensors_in

KEEPS_ZERO = frozenset(
    "neg negative abs relu tanh to float half double bfloat16 type type_as clone contiguous detach".split()
)
CHANGES_ZERO = frozenset(
    "exp log sigmoid softplus rsqrt sqrt square pow reciprocal rdiv rtruediv clamp clamp_min".split()
)
ALONE = KEEPS_ZERO | CHANGES_ZERO
SUMS, QUOTIENTS = frozenset(["add", "sub", "rsub"]), frozenset(["div", "true_divide"])
OF_TWO = SUMS | QUOTIENTS | {"mul"}
JOINS = OF_TWO | {"rdiv", "rtruediv"}
"""Operators whose rules know what to do with such a tensor."""


@dataclass(frozen=True)
class Computed:
    """What a tensor was worked out from.

    Attributes:
        parts: parameters and buffers with one number for each channel.
        zero: those of them that make it zero where they are; empty where none would.
        whole: those that have to stay as they are, since it may be infinite where they are zero.
    """

    parts: tuple[torch.Tensor, ...]
    zero: tuple[torch.Tensor, ...]
    whole: tuple[torch.Tensor, ...] = ()

    @property
    def can_be_zero(self) -> bool:
        """Whether it is zero, and nothing else infinite, where some of its parts are zero."""
        return bool(self.zero) and not {id(t) for t in self.zero} & {id(t) for t in self.whole}


def one_for_each(tensor: torch.Tensor) -> bool:
    """Whether a tensor has more than one number, all of them along one dimension."""
    return sum(size != 1 for size in tensor.shape) == 1


def computed(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out: Any,
    known: Callable[[torch.Tensor], Computed | None],
) -> Computed | None:
    """What the result of a call was worked out from; ``None`` where the call is none that is known.

    Args:
        name: the operator.
        args: of the call; so are ``kwargs``.
        out: its result.
        known: of a parameter, a buffer, or what was worked out from them.
    """
    if name in ALONE:
        others = tensors_in((args[1:], kwargs)) if name in CHANGES_ZERO else []
        found = known(args[0]) if args and not others else None
        return found if found is None or name in KEEPS_ZERO else Computed(found.parts, (), found.parts)
    if name not in OF_TWO or kwargs or not one_for_each(out):
        return None
    one, other = (_operand(x, known) for x in args)
    return None if one is None or other is None else _joined(name, one, other)


def _operand(x: Any, known: Callable[[torch.Tensor], Computed | None]) -> Computed | None:
    """One number for all channels, of Python's or in a tensor, has no parts."""
    return known(x) if isinstance(x, torch.Tensor) and x.numel() > 1 else Computed((), ())


def _joined(name: str, one: Computed, other: Computed) -> Computed:
    parts, whole = (*one.parts, *other.parts), (*one.whole, *other.whole)
    if name in SUMS:
        return Computed(parts, (*one.zero, *other.zero) if one.zero and other.zero else (), whole)
    if name in QUOTIENTS:
        return Computed(parts, one.zero, (*whole, *other.parts))
    # What is made of fewer is less likely to be wanted as it is by something else.
    factors = sorted((one, other), key=lambda each: len(each.parts))
    zeros = (each.zero for each in factors if Computed(parts, each.zero, whole).can_be_zero)
    return Computed(parts, next(zeros, ()), whole)
