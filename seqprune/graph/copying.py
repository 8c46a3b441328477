"""Copies of networks, of those as well that keep what cannot be copied: an activation, a lock, an open file.

A tensor that a network kept of its last run belongs to a gradient's history, which torch does not copy: the copy holds
its values. Locks, files and the like are shared with the copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from seqprune.errors import ModelError
from seqprune.graph.values import ANY_FAILURE, first_line

Network = TypeVar("Network", bound=nn.Module)

# What copying an object without a copy of its own raises: its class may have any error of its own.
REFUSALS = ANY_FAILURE


def copied(model: Network, instead: Mapping[int, torch.Tensor] | None = None) -> Network:
    """A deep copy of a network.

    Args:
        model: any network.
        instead: by the ids of its tensors, what stands in their places in the copy.

    Raises:
        ModelError: it holds something that cannot be copied and hides where, or that is its own copy.
    """
    with torch.no_grad(), _Detached():
        copy = _copied(model, instead or {})
    _require_apart(model, copy, instead or {})
    # A ScriptModule copies its parameters as it computes, and alone those that it shares with other modules.
    pairs = (each.named_parameters(remove_duplicate=False) for each in (model, copy))
    for (_, old), (_, new) in zip(*pairs, strict=True):
        if new.requires_grad != old.requires_grad:
            new.requires_grad_(old.requires_grad)
    return copy


def _require_apart(model: nn.Module, copy: nn.Module, instead: Mapping[int, torch.Tensor]) -> None:
    """Whatever is done to the copy would be done to the network itself otherwise."""
    held = [*model.modules(), *model.parameters(), *model.buffers()]
    own = set(map(id, held)) - set(map(id, instead.values()))
    for path, module in copy.named_modules():
        tensors = (*module._parameters.values(), *module._buffers.values())
        if any(id(each) in own for each in (module, *tensors) if each is not None):
            raise ModelError(
                f"a copy of {path or 'the network'} is, or shares its weights with, the original "
                f"({type(module).__name__}.__deepcopy__ likely): leave that method out, so that a copy is one"
            )


def _copied(model: Network, instead: Mapping[int, torch.Tensor]) -> Network:
    try:
        return deepcopy(model, _empty(model) | dict(instead))
    except REFUSALS:
        shared = _refusing(model)
    try:
        return deepcopy(model, shared | dict(instead))
    except REFUSALS as error:
        raise ModelError(
            f"the network cannot be copied ({first_line(error)}): it holds something that has no copy; give a network "
            "without it"
        ) from error


def _empty(model: nn.Module) -> dict[int, Any]:
    """Copies of what modules hold of nothing, a dozen empty dictionaries and sets in each: most time went there."""
    held = (value for module in model.modules() for value in vars(module).values())
    return {id(value): type(value)() for value in held if type(value) in (OrderedDict, set) and not value}


class _Detached(TorchFunctionMode):
    """Tensors with a gradient's history are copied without it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__ and args[0].grad_fn is not None:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _refusing(model: nn.Module) -> dict[int, Any]:
    """What the modules of a network hold, however deep, that has no copy; by its id, as ``deepcopy`` takes it."""
    shared: dict[int, Any] = {}
    seen: set[int] = set()
    for module in model.modules():
        _find_refusing(vars(module), seen, shared)
    return shared


def _find_refusing(held: Any, seen: set[int], shared: dict[int, Any]) -> None:
    if id(held) in seen or isinstance(held, torch.Tensor | nn.Module | type | str | bytes | int | float | None):
        return
    seen.add(id(held))
    container = isinstance(held, dict | list | tuple | set | frozenset)
    if isinstance(held, dict):
        inside = [*held.keys(), *held.values()]
    else:
        inside = list(held) if container else list(getattr(held, "__dict__", {}).values())
    for part in inside:
        _find_refusing(part, seen, shared)
    if not container:
        try:
            deepcopy(held, dict(shared))
        except REFUSALS:
            shared[id(held)] = held
