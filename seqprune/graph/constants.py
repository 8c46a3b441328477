"""Channels that are a constant once removed, which the bias of the layer that reads them takes up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from seqprune.errors import ModelError
from seqprune.graph.channels import IntArray
from seqprune.graph.counts import plain
from seqprune.graph.modes import drawing
from seqprune.graph.values import Value

NUMBER = int | float
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_MAKES_ONE = re.compile("fuse|reparam|deploy")


def _code_of(kind: type[nn.Module]) -> tuple[Any, Any]:
    return kind.forward, getattr(kind, "_conv_forward", None)


def runs_as_torch(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a layer adds its bias to what it makes with its weight, and these are the two."""
    own = not vars(layer).keys() & {"forward", "_conv_forward"}
    torchs = _code_of(type(layer)) in map(_code_of, _LAYERS)
    return own and torchs and layer.weight is weight and layer.bias is bias


def made_one(modules: Mapping[str, nn.Module], path: str) -> bool:
    """Whether a module around a layer has a method that makes one layer of several, and may count on it as it is."""
    names = path.split(".")
    around = {type(modules[".".join(names[:depth])]) for depth in range(len(names))}
    return any(_MAKES_ONE.search(name) for kind in around for name in dir(kind))


@dataclass
class Constants:
    """What is read as a constant, and by which numbers it was made, pass by pass.

    Attributes:
        folds: by the id of a layer's weight, the atoms that its bias takes up.
        possible: whether a pass can be run again, to see the constants.
    """

    folds: dict[int, IntArray] = field(default_factory=dict)
    possible: bool = True

    def __post_init__(self) -> None:
        self._pass = 0
        self._read: Counter[tuple[int, int]] = Counter()
        self._numbers: dict[tuple[str, str, int], list[Any]] = {}
        self._calls: Counter[tuple[str, str]] = Counter()

    def begin(self) -> None:
        """A pass starts."""
        self._pass += 1
        self._calls.clear()

    def reads(self, weight: int) -> None:
        self._read[self._pass, weight] += 1

    def fold(self, weight: int, atoms: IntArray) -> str:
        """The layer with this weight takes them up; why it cannot, else an empty text."""
        late = self._pass > 1 and weight not in self.folds
        self.folds[weight] = atoms
        if not self.possible:
            return "constant once removed, and the inputs are no plain tensors to find the constants with"
        return "constant once removed, in training only" if late else ""

    def unsteady(self, module: str, op: str, made: Iterable[Value], leaves: Iterable[Any]) -> Iterator[IntArray]:
        """Of what a call made, channels that are constant once removed, but by other numbers in another pass."""
        self._calls[module, op] += 1
        numbers = [
            plain(leaf, read=False) for leaf in leaves if isinstance(leaf, NUMBER) and not isinstance(leaf, bool)
        ]
        if numbers != self._numbers.setdefault((module, op, self._calls[module, op]), numbers):
            for value in made:
                if value.constant and not value.zero:
                    yield value.known()

    def read_twice(self) -> Iterator[IntArray]:
        """Constants of layers that read more than once in a pass, maybe others each time."""
        twice = {weight for (_, weight), times in self._read.items() if times > 1}
        return (atoms for weight, atoms in self.folds.items() if weight in twice)

    def copy(self) -> Constants:
        other = copy(self)
        for name in ("folds", "_read", "_numbers", "_calls"):
            setattr(other, name, copy(getattr(self, name)))
        return other


def constants_read(
    masked: nn.Module, gone: Mapping[str, IntArray], inputs: tuple[torch.Tensor, ...]
) -> dict[str, torch.Tensor]:
    """By layer, ``[channels]``, what a masked network gives it in channels that are constant once removed.

    Args:
        masked: in inference mode; hooks stay on it.
        gone: by module path, places of such channels in what it reads.
        inputs: of which sizes; floats are drawn, since a network that divides by its input makes no number of zeros.

    Raises:
        ModelError: what it gives there is no number.
    """
    seen: dict[str, torch.Tensor] = {}
    for path, index in gone.items():
        dim = -1 if isinstance(masked.get_submodule(path), nn.Linear) else 1

        def see(_m: Any, given: Any, named: Any, path: str = path, index: Any = index, dim: int = dim) -> None:
            read = given[0] if given else named["input"]
            found = read.index_select(dim, torch.from_numpy(index).to(read.device))
            seen[path] = found.movedim(dim, 0).reshape(len(index), -1)[:, 0].double()

        masked.get_submodule(path).register_forward_pre_hook(see, with_kwargs=True)
    draw = torch.Generator().manual_seed(0)
    drawn = (torch.rand(t.shape, generator=draw).to(t) if t.is_floating_point() else t for t in inputs)
    with torch.no_grad(), drawing(masked):
        masked(*drawn)
    if strange := next((path for path, numbers in seen.items() if not numbers.isfinite().all()), None):
        raise ModelError(
            f"what {strange} reads of removed channels is NaN or infinite: look at the layers in front of it"
        )
    return seen
