"""What a trace knows of tensors, without keeping them: a network's activations are freed as in any other pass."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from seqprune.graph.values import Value

Fact = TypeVar("Fact")


class Remembered(Generic[Fact]):
    """One fact for each tensor, known by the object itself; of a tensor that is gone nothing is known."""

    def __init__(self) -> None:
        self._facts: dict[int, tuple[ref[torch.Tensor], Fact]] = {}

    def set(self, tensor: torch.Tensor, fact: Fact) -> None:
        self._facts[id(tensor)] = ref(tensor), fact

    def get(self, tensor: torch.Tensor) -> Fact | None:
        known = self._facts.get(id(tensor))
        # The id of a tensor that is gone may be another's by now.
        return None if known is None or known[0]() is not tensor else known[1]

    def alive(self) -> list[torch.Tensor]:
        """Tensors of which something is known, and that something else still holds."""
        return [tensor for known, _ in self._facts.values() if (tensor := known()) is not None]


class Storages:
    """The channels of all tensors that lie, or lay, in one memory, as long as anything holds that memory."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[StorageWeakRef, list[Value]]] = {}

    def add(self, tensor: torch.Tensor, value: Value) -> None:
        if tensor.layout is not torch.strided:
            return  # a sparse tensor shares its memory with none of those that are followed
        storage = tensor.untyped_storage()
        known = self._values.get(storage.data_ptr())
        if known is None or known[0].expired():  # type: ignore[no-untyped-call]
            known = self._values[storage.data_ptr()] = StorageWeakRef(storage), []  # type: ignore[no-untyped-call]
        known[1].append(value)

    def of(self, tensor: torch.Tensor) -> list[Value]:
        if tensor.layout is not torch.strided:
            return []
        known = self._values.get(tensor.untyped_storage().data_ptr())
        return [] if known is None or known[0].expired() else known[1]  # type: ignore[no-untyped-call]
