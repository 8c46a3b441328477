"""Copies of networks, of those as well that keep what cannot be copied: an activation, a lock, an open file.

A tensor that a network kept of its last run belongs to a gradient's history, which torch does not copy: the copy holds
its values. Locks, files and the like are shared with the copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from copyreg import dispatch_table
from functools import lru_cache
from types import MemberDescriptorType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from seqprune.errors import ModelError
from seqprune.graph.values import ANY_FAILURE, first_line

Network = TypeVar("Network", bound=nn.Module)


def copied(model: Network, instead: Mapping[int, torch.Tensor] | None = None) -> Network:
    """A deep copy of a network.

    Args:
        model: any network.
        instead: by the ids of its tensors, what stands in their places in the copy.

    Raises:
        ModelError: it holds something that cannot be copied and hides where, or that is its own copy.
    """
    modules = tuple(model.modules())
    with torch.no_grad():
        copy = _copied(model, modules, instead or {})
    _require_apart(modules, copy, instead or {})
    if any(
        issubclass(kind, torch.jit.ScriptModule) or hasattr(kind, "__deepcopy__") for kind in set(map(type, modules))
    ):
        # A ScriptModule copies its parameters as it computes, and alone those that it shares with other modules.
        pairs = (each.named_parameters(remove_duplicate=False) for each in (model, copy))
        for (_, old), (_, new) in zip(*pairs, strict=True):
            if new.requires_grad != old.requires_grad:
                new.requires_grad_(old.requires_grad)
    return copy


def _require_apart(modules: Sequence[nn.Module], copy: nn.Module, instead: Mapping[int, torch.Tensor]) -> None:
    """Whatever is done to the copy would be done to the network itself otherwise."""
    held, theirs = ([each for module in all_of for each in _held_by(module)] for all_of in (modules, copy.modules()))
    own = set(map(id, held)) - set(map(id, instead.values()))
    if own.isdisjoint(map(id, theirs)):
        return
    for path, module in copy.named_modules():
        if not own.isdisjoint(map(id, _held_by(module))):
            raise ModelError(
                f"a copy of {path or 'the network'} is, or shares its weights with, the original "
                f"({type(module).__name__}.__deepcopy__ likely): leave that method out, so that a copy is one"
            )


def _held_by(module: nn.Module) -> list[nn.Module | torch.Tensor]:
    """A module, its parameters and its buffers."""
    tensors = (*module._parameters.values(), *module._buffers.values())
    return [module, *(each for each in tensors if each is not None)]


def _copied(model: Network, modules: Sequence[nn.Module], instead: Mapping[int, torch.Tensor]) -> Network:
    try:
        return _by_modules(model, modules, dict(instead))
    except ANY_FAILURE:
        pass
    with _Detached():
        try:
            return _by_modules(model, modules, dict(instead) | _refusing(model))
        except ANY_FAILURE as error:
            raise ModelError(
                f"the network cannot be copied ({first_line(error)}): it holds something that has no copy; give a "
                "network without it"
            ) from error


def _by_modules(model: Network, modules: Sequence[nn.Module], memo: dict[int, Any]) -> Network:
    """As ``deepcopy``, which takes most of its time on the names, flags and empty dictionaries in every module."""
    held = [_copy_module(module, memo) for module in reversed(modules)]  # what is in others comes first
    copy = deepcopy(model, memo)
    held.clear()  # till here no other object got the id of one that is copied
    return copy


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> Any:
    """Puts the copy of a module whose class says nothing of copying in the memo; gives back what was copied."""
    kind: Any = type(module)
    if id(module) in memo or hasattr(module, "__deepcopy__") or kind in dispatch_table:
        return None
    reduced: Any = module.__reduce_ex__(4)
    if reduced[:2] != (_NEW, (kind,)) or [*map(type, reduced[2:3])] != [dict] or any(reduced[3:]):
        return None
    copy: Any = kind.__new__(kind)
    memo[id(module)] = copy
    copy.__setstate__(_copy_items(reduced[2], {}, memo))
    slots = {name: getattr(module, name) for name in _slots(kind) if hasattr(module, name)}
    for name, held in _copy_items(slots, {}, memo).items():
        object.__setattr__(copy, name, held)
    return reduced


@lru_cache(maxsize=256)
def _slots(kind: type) -> tuple[str, ...]:
    """Attributes that lie in no ``__dict__``, of which a module's own state says nothing."""
    slots = (vars(each).get("__slots__", ()) for each in kind.__mro__)
    names = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    return tuple(name for name in names if isinstance(getattr(kind, name, None), MemberDescriptorType))


def _copy_items(held: dict[Any, Any], copy: dict[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    """Fills ``copy`` with what ``held`` holds."""
    for name, each in held.items():
        kind = type(each)
        if kind in _ATOMS:
            other = each
        elif kind in _CONTAINERS and not each:
            other = memo.setdefault(id(each), kind())
        else:
            other = _copy_held(each, memo)
        copy[name if type(name) in _ATOMS else deepcopy(name, memo)] = other
    return copy


def _copy_held(held: Any, memo: dict[int, Any]) -> Any:
    known = memo.get(id(held))
    if known is not None:
        return known
    kind = type(held)
    if kind is tuple and _ATOMS.issuperset(map(type, held)):
        return held
    if kind is dict:
        return _copy_items(held, memo.setdefault(id(held), {}), memo)
    return _copy_values(held, memo) if kind is torch.Tensor and _is_plain(held) else deepcopy(held, memo)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether there is nothing to a tensor but its values; a sparse one is not contiguous."""
    return tensor.is_contiguous() and not tensor.requires_grad and tensor.grad is None and not vars(tensor)


def _copy_values(tensor: torch.Tensor, memo: dict[Any, Any]) -> torch.Tensor:
    """As the tensor's own ``__deepcopy__``, which takes twenty times as long for the few values of a buffer."""
    memory, copies = tensor.untyped_storage(), memo.setdefault("torch", {})  # there torch looks for copies of memory
    if memory._cdata in copies or memory.nbytes() != tensor.nbytes:
        return deepcopy(tensor, memo)
    copy: torch.Tensor = memo.setdefault(id(tensor), tensor.clone())
    copies[memory._cdata] = copy.untyped_storage()
    return copy


_CONTAINERS = frozenset((dict, OrderedDict, set))
_ATOMS = frozenset((type(None), bool, int, float, str))
_NEW = object().__reduce_ex__(4)[0]  # of a class that says nothing of how its objects are made


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
        except ANY_FAILURE:
            shared[id(held)] = held
