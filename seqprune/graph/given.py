"""What callers hand over, looked at before anything is done with it: a mistake is said here, not by torch later."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from seqprune.errors import ModelError, PlanError
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.values import tensors_in

_MOST = 1 << 28
"""Numbers in the example inputs of a plan: a GiB of them in float32, as many as 200 images of 640 pixels."""


def check_network(model: object) -> None:
    """
    Raises:
        ModelError: it is none.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"a network is a torch.nn.Module, not a {type(model).__name__}: give the built module itself")


def check_graph(graph: object) -> None:
    """
    Raises:
        PlanError: it is none.
    """
    if not isinstance(graph, ChannelGraph):
        raise PlanError(f"the graph is a {type(graph).__name__}: give what trace returned")


def check_belongs(graph: ChannelGraph, model: nn.Module) -> None:
    """Whether every tensor that a graph cuts is there, of the size that it knows.

    Raises:
        PlanError: the graph is another network's.
    """
    modules = dict(model.named_modules())
    for cut in graph.slices:
        tensor = getattr(modules.get(cut.module), cut.tensor, None)
        name = f"{cut.module}.{cut.tensor}".lstrip(".")
        if not isinstance(tensor, torch.Tensor):
            seen = f"there is no {name}"
        elif tensor.dim() <= cut.dim or tensor.shape[cut.dim] not in (cut.groups.size, cut.groups.shape[-1]):
            seen = f"{name} is {list(tensor.shape)} and not {cut.groups.shape[-1]} along dimension {cut.dim}"
        else:
            continue
        raise PlanError(f"the graph is another network's: {seen} here; trace this one, or leave the graph out")


def check_inputs(inputs: tuple[Any, ...]) -> None:
    """
    Raises:
        ModelError: there is no tensor in them, or none that holds a number.
    """
    tensors = tensors_in(inputs)
    if not tensors:
        raise ModelError("there is no tensor in the example inputs: give tensors, in tuples, lists or dictionaries")
    if not any(map(torch.numel, tensors)):
        raise ModelError(
            "the example inputs hold no number, so nothing can be seen of the network: give a batch of one"
        )


def zeros(model: nn.Module, inputs: Any) -> tuple[torch.Tensor, ...]:
    """Inputs of the shapes that a graph was traced with, in the precision of the network.

    Args:
        model: the network.
        inputs: of a graph or a plan, which may come from a file.

    Raises:
        PlanError: there are no such tensors, or none that any network was traced with.
    """
    parameter = next(model.parameters(), torch.empty(0))
    if not isinstance(inputs, tuple):
        raise PlanError(f"the plan is for inputs of {type(inputs).__name__}: make it anew with PrunePlan.from_keep")
    made = []
    for shape, name in inputs:
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype) or name.startswith("q") or math.prod(shape) > _MOST:
            raise PlanError(
                f"the plan is for inputs of {' × '.join(map(str, shape))} {name}, which no network takes: its file is "
                "damaged; make it anew"
            )
        kind = parameter.dtype if dtype.is_floating_point and parameter.is_floating_point() else dtype
        made.append(torch.zeros(shape, dtype=kind, device=parameter.device))
    return tuple(made)


def indices_of(name: str, given: Iterable[int]) -> tuple[int, ...]:
    """A keep set: whole numbers of any kind; no truth values, which tell of every channel whether it stays.

    Raises:
        PlanError: it is something else.
    """
    try:
        found = list(given)
        if not (isinstance(given, Mapping) or any(map(_is_truth, found))):
            return tuple(map(operator.index, found))
    except TypeError:
        pass
    raise PlanError(f"the keep set of {name} holds something else than whole numbers: give indices of its channels")


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def check_keep(name: str, channels: int, keep: tuple[int, ...]) -> None:
    """Raises :class:`PlanError` unless ``keep`` is a sorted, non-empty subset of ``range(channels)``."""
    if not keep:
        raise PlanError(f"the keep set of {name} is empty: a layer keeps at least one of its {channels} channels")
    if min(keep) < 0 or max(keep) >= channels:
        worst = min(keep) if min(keep) < 0 else max(keep)
        raise PlanError(f"the keep set of {name} holds {worst}, outside [0, {channels}): give indices of its channels")
    if any(a >= b for a, b in pairwise(keep)):
        raise PlanError(f"the keep set of {name} is not sorted or holds an index twice: give ascending indices")
