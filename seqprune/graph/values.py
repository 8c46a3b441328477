"""The channels of a tensor, as a trace knows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from seqprune.errors import ModelError
from seqprune.graph.channels import IntArray

# What a network's own code raises where it does not run.
NETWORK_FAILS = (
    *(RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(NameError, ImportError, OSError, torch.jit.Error),
)


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
    """

    atoms: IntArray | None
    dim: int = 1
    zero: bool = True
    constant: bool = False

    @property
    def steady(self) -> bool:
        """Whether a removed channel is one number everywhere, zero or not."""
        return self.zero or self.constant

    @property
    def opaque(self) -> bool:
        return self.atoms is None

    def known(self) -> IntArray:
        if self.atoms is None:
            raise NoRule("channels were lost at an earlier barrier")
        return self.atoms


OPAQUE = Value(None)


def leaves_of(tree: Any) -> list[Any]:
    """As ``tree_leaves``, which takes most of the time that a trace takes on its arguments."""
    found: list[Any] = []
    _collect(tree, found)
    return found


def _collect(tree: Any, found: list[Any]) -> None:
    kind = type(tree)
    if kind is tuple or kind is list:
        for part in tree:
            _collect(part, found)
    elif kind is dict:
        for part in tree.values():
            _collect(part, found)
    elif kind in LEAVES:
        found.append(tree)
    else:
        found += tree_leaves(tree)


LEAVES = frozenset(
    (torch.Tensor, torch.nn.Parameter, int, float, bool, str, type(None), slice, torch.dtype, torch.device)
)


def tensors_in(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in leaves_of(tree) if isinstance(leaf, torch.Tensor)]


def leaves(tree: Any, known: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Those of lists, tuples and dictionaries, and of the attributes of whatever else holds some.

    Raises:
        ModelError: there is an iterator, which could be read only once.
    """
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Iterator):
            raise ModelError(f"the network returns a {type(leaf).__name__}: let it return a list, to be read twice")
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            inside = [getattr(leaf, entry.name) for entry in dataclasses.fields(leaf)]
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, torch.Tensor | torch.nn.Module | type):
            inside = list(vars(leaf).values())
        else:
            yield leaf
            continue
        if id(leaf) not in known:
            yield from leaves(inside, known | {id(leaf)})


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], tree: Any) -> Any:
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, torch.Tensor) else leaf, tree)


def doubled(tree: Any) -> Any:
    """A batch of two for one of one, which BatchNorm needs in training where an image shrinks to one pixel."""
    return map_tensors(lambda t: torch.cat([t, t]) if t.shape[:1] == (1,) else t, tree)


def cloned(tree: Any) -> Any:
    """The same with tensors of their own: a network may work in place on what it is given."""
    return map_tensors(torch.Tensor.clone, tree)
