"""The channels of a tensor, as a trace knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from seqprune.graph.channels import IntArray


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
    """

    atoms: IntArray | None
    dim: int = 1
    zero: bool = True

    @property
    def opaque(self) -> bool:
        return self.atoms is None

    def known(self) -> IntArray:
        if self.atoms is None:
            raise NoRule("channels were lost at an earlier barrier")
        return self.atoms


OPAQUE = Value(None)


def tensors_in(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def cloned(tree: Any) -> Any:
    """The same with tensors of their own: a network may work in place on what it is given."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tree)
