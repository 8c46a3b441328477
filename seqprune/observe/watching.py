"""Watching layers while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from seqprune.graph.copying import copied
from seqprune.graph.values import tensors_in

Looks = Callable[[str, nn.Module, torch.Tensor, torch.Tensor], None]
"""Given the name of a module, itself, its input and its output; of several the first that is a tensor."""


def recording(model: nn.Module) -> nn.Module:
    """A copy all of whose weights are followed: behind a ``detach``, frozen ones would leave no graph."""
    copy = copied(model)
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copy


@contextmanager
def watching(model: nn.Module, names: Sequence[str], look: Looks) -> Iterator[None]:
    """Calls ``look`` whenever one of the modules has run."""

    def hook(name: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        given, made = tensors_in((inputs, named)), tensors_in(output)
        if given and made:
            look(name, module, given[0], made[0])

    handles = [model.get_submodule(name).register_forward_hook(partial(hook, name), with_kwargs=True) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def idle(model: nn.Module, made: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Lets modules return zeros of the size and type that ``made`` has by their names, and compute nothing."""

    def nothing(like: torch.Tensor, *_inputs: Any, **_named: Any) -> torch.Tensor:
        return like.new_zeros(like.shape)

    modules = {name: model.get_submodule(name) for name in made}
    before = {name: module.__dict__.get("forward") for name, module in modules.items()}
    for name, module in modules.items():
        module.__dict__["forward"] = partial(nothing, made[name])
    try:
        yield
    finally:
        for name, module in modules.items():
            del module.__dict__["forward"]
            if before[name] is not None:
                module.__dict__["forward"] = before[name]


@contextmanager
def entering(model: nn.Module, names: Iterable[str], look: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Calls ``look`` with the name of a module and its first input, if that is a tensor, before the module runs."""

    def hook(name: str, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = next(iter((*inputs, *named.values())), None)
        if isinstance(first, torch.Tensor):
            look(name, first)

    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(hook, name), with_kwargs=True) for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
