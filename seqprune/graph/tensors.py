"""The tensors of a network that runs: whose parameters they are, and which channels lie in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seqprune.graph.computed import Computed, one_for_each
from seqprune.graph.remembered import Remembered, Storages
from seqprune.graph.values import NoRule, Value, tensors_in


@dataclass(frozen=True)
class Owner:
    """Whose a parameter or buffer is: the module's path, and its name there."""

    module: str
    tensor: str


def held_by(modules: Mapping[str, nn.Module]) -> Iterator[tuple[Owner, torch.Tensor]]:
    """Parameters and buffers of modules, which are given by their paths; one that several hold comes with each."""
    for path, module in modules.items():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield Owner(path, name), tensor


@dataclass
class Tensors:
    """What is known of single tensors, by the very object."""

    model: nn.Module
    largest: int = 0
    """Numbers in the largest tensor that a pass made, of those that depend on the network's input."""

    def __post_init__(self) -> None:
        self._values: Remembered[Value] = Remembered()
        self._storages = Storages()
        self._owners: dict[int, list[Owner]] = {}
        self._versions: dict[int, int] = {}
        self._numbers: dict[int, torch.Tensor] = {}
        self._at_first: list[torch.Tensor] = []  # code may put others in their places, which got their ids then
        self._views: Remembered[torch.Tensor] = Remembered()
        self._computed: Remembered[Computed] = Remembered()
        self.modules: dict[str, nn.Module] = dict(self.model.named_modules())
        for owner, tensor in held_by(self.modules):
            self._owners.setdefault(id(tensor), []).append(owner)
            self._versions[id(tensor)] = _version(tensor)
            self._at_first.append(tensor)
            if tensor.numel() == 1 and not tensor.is_meta:
                self._numbers[id(tensor)] = tensor.detach().clone()

    def value(self, tensor: torch.Tensor) -> Value | None:
        """Channels of ``tensor``, ``None`` where it does not depend on the network's input."""
        return self._values.get(tensor)

    def followed(self, tensor: torch.Tensor) -> Value:
        """Channels of ``tensor``, which a rule cannot do without.

        Raises:
            NoRule: the tensor does not depend on the network's input; the operator is then a barrier.
        """
        value = self.value(tensor)
        if value is None:
            raise NoRule("a constant takes part where channels were expected")
        return value

    def set_value(self, tensor: torch.Tensor, value: Value) -> None:
        self._values.set(tensor, value)
        self.largest = max(self.largest, tensor.numel())
        self._storages.add(tensor, value)

    def tracked(self, tree: Any) -> list[torch.Tensor]:
        """The tensors in ``tree`` that depend on the network's input."""
        return [t for t in tensors_in(tree) if self.value(t) is not None]

    def owners(self, tensor: torch.Tensor) -> list[Owner]:
        """The modules that hold this very tensor as a parameter or buffer."""
        return self._owners.get(id(tensor), [])

    def steady(self, tensor: torch.Tensor) -> bool:
        """Whether it is a parameter or buffer that no pass wrote into so far; of a number also by another name of its
        memory, of which torch does not count the versions.
        """
        number = self._numbers.get(id(tensor))
        same = number is None or torch.equal(number, tensor)
        return same and bool(self.owners(tensor)) and self._versions[id(tensor)] == _version(tensor)

    def adopt_view(self, view: torch.Tensor, parameter: torch.Tensor) -> None:
        """Takes ``view`` for ``parameter``: the same numbers, with dimensions of size one around them.

        ``parameter`` may also be such a view itself, or what was worked out from some.
        """
        if (found := self._computed.get(parameter)) is not None:
            self._computed.set(view, found)
        else:
            self._views.set(view, self.parameter(parameter))

    def parameter(self, tensor: torch.Tensor) -> torch.Tensor:
        """The parameter or buffer that ``tensor`` is a view of, else ``tensor`` itself."""
        found = self._views.get(tensor)
        return tensor if found is None else found

    def set_computed(self, tensor: torch.Tensor, found: Computed) -> None:
        self._computed.set(tensor, found)

    def computed(self, tensor: torch.Tensor) -> Computed | None:
        """What a tensor with one number for each channel was worked out from; a parameter or buffer from itself."""
        if (found := self._computed.get(tensor)) is not None:
            return found
        held = self.parameter(tensor)
        return Computed((held,), (held,)) if self.owners(held) and one_for_each(held) else None

    def is_computed(self, tensor: torch.Tensor) -> bool:
        """Whether it is worked out, and no parameter or buffer itself."""
        return self._computed.get(tensor) is not None

    def kept(self) -> list[torch.Tensor]:
        """What was worked out and is there when a pass is over: code keeps it, as in an attribute."""
        return self._computed.alive()

    def held_in(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The parameters and buffers that a tensor is a view of, or was worked out from."""
        found = self._computed.get(tensor)
        return (self.parameter(tensor),) if found is None else found.parts

    def shares_memory(self, tree: Any) -> bool:
        """Whether a tensor in ``tree`` lies in memory that depends on the network's input."""
        return any(self._storages.of(t) for t in tensors_in(tree))


def _version(tensor: torch.Tensor) -> int:
    """How often it was written in place; torch does not count it of tensors made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version
