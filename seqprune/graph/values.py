"""The channels of a tensor, as a trace knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set, ValuesView
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from seqprune.errors import ModelError
from seqprune.graph.channels import IntArray

# What code raises where it does not run, beside which an engine or a suite has exceptions of its own to let through.
NETWORK_FAILS = (
    *(RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(NameError, ImportError, OSError, torch.jit.Error),
)
ANY_FAILURE = (Exception,)
"""The same around a network's own code alone, whose errors may be of a class of its own: no list holds them all.

What seqprune raises inside it is let through before.
"""


def first_line(error: BaseException) -> str:
    """``ValueError: too large``, without the lines that torch adds."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class NoRule(Exception):
    """This use of an operator is not covered; the message becomes the barrier's reason."""


FIXED = 0
"""The atom of every channel that is not a layer's output: the network input, constants, untracked values."""


@dataclass(frozen=True)
class Value:
    """The channels of one tensor.

    Attributes:
        atoms: ``[channels]`` along ``dim``; ``None`` where the channels could not be followed.
        dim: the channel dimension, non-negative.
        zero: whether a removed channel is exactly zero here. After a sigmoid it is not.
        constant: whether a removed channel that is not zero is one number everywhere, whatever the input.
        nonzero: whether it is such a number and surely not zero, as behind ``x + 1e-6``, so that may be divided by it.
    """

    atoms: IntArray | None
    dim: int = 1
    zero: bool = True
    constant: bool = False
    nonzero: bool = False

    @property
    def steady(self) -> bool:
        """Whether a removed channel is one number everywhere, zero or not."""
        return self.zero or self.constant

    @property
    def opaque(self) -> bool:
        return self.atoms is None

    @property
    def fixed(self) -> bool:
        """Whether nothing that can leave lies along any dimension, as in what is made of the network's input alone."""
        return self.atoms is not None and not (self.atoms != FIXED).any()

    def known(self) -> IntArray:
        if self.atoms is None:
            raise NoRule("channels were lost at an earlier barrier")
        return self.atoms


OPAQUE = Value(None)


def leaves_of(*trees: Any) -> list[Any]:
    """As ``tree_leaves``, which takes most of the time that a trace takes on its arguments."""
    found: list[Any] = []
    _collect(trees, found)
    return found


def _collect(parts: Iterable[Any], found: list[Any]) -> None:
    for part in parts:
        kind = type(part)
        if kind in LEAVES:
            found.append(part)
        elif kind is tuple or kind is list:
            _collect(part, found)
        elif kind is dict:
            _collect(part.values(), found)
        else:
            found += tree_leaves(part)


LEAVES = frozenset(
    (torch.Tensor, torch.nn.Parameter, int, float, bool, str, type(None), slice, torch.dtype, torch.device)
)


def tensors_in(tree: Any) -> list[torch.Tensor]:
    return [tree] if isinstance(tree, torch.Tensor) else tensors_among(leaves_of(tree))


def tensors_among(leaves: Iterable[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def leaves(tree: Any, known: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Those of lists, tuples and dictionaries, of classes made of them, and of what any other object holds.

    Raises:
        ModelError: there is an iterator, which could be read only once, or a set of tensors, which has no order.
    """
    for leaf in tree_leaves(tree):
        inside = _inside(leaf)
        if inside is None:
            yield leaf
        elif id(leaf) not in known:
            yield from leaves(inside, known | {id(leaf)})


_NOT_OPENED = (torch.Tensor, torch.nn.Module, type, str, bytes, int, float, complex, type(None))


def _inside(leaf: Any) -> list[Any] | None:
    """The elements and attributes of an object that torch's trees do not know; ``None`` for one without any."""
    if isinstance(leaf, _NOT_OPENED):
        return None
    if isinstance(leaf, Iterator):
        raise ModelError(f"the network returns a {type(leaf).__name__}: let it return a list, to be read twice")
    if isinstance(leaf, Set) and any(isinstance(each, torch.Tensor) for each in leaf):
        raise ModelError(f"the network returns a {type(leaf).__name__} of tensors, without an order: return a list")
    slots = [(kind, name) for kind in type(leaf).__mro__ for name in _names(vars(kind).get("__slots__", ()))]
    if not (hasattr(leaf, "__dict__") or slots or isinstance(leaf, Mapping | ValuesView | list | tuple)):
        return None
    inside = list(leaf.values()) if isinstance(leaf, Mapping) else []
    inside += list(leaf) if isinstance(leaf, ValuesView | list | tuple) else []
    inside += list(getattr(leaf, "__dict__", {}).values())
    own = (f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") else name for kind, name in slots)
    return inside + [getattr(leaf, name) for name in own if hasattr(leaf, name)]


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], tree: Any) -> Any:
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, torch.Tensor) else leaf, tree)


def doubled(tree: Any) -> Any:
    """A batch of two for one of one, which BatchNorm needs in training where an image shrinks to one pixel."""
    return map_tensors(lambda t: torch.cat([t, t]) if t.shape[:1] == (1,) else t, tree)


def cloned(tree: Any) -> Any:
    """The same with tensors of their own: a network may work in place on what it is given."""
    return map_tensors(torch.Tensor.clone, tree)
