"""Inputs of a network, whatever their structure.

A tuple holds the arguments of a call, anything else is the only argument. Tensors hold one image, or whatever the
network calls so, along their first dimension; a list has one entry an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from seqprune.errors import DataError

Inputs = Any
"""A tensor, or tuples, lists and dictionaries of them; other values go to the network as they are."""


def mapped(change: Callable[[torch.Tensor], torch.Tensor], inputs: Inputs) -> Inputs:
    """The same structure with every tensor changed."""
    if isinstance(inputs, torch.Tensor):
        return change(inputs)
    if isinstance(inputs, tuple | list):
        return type(inputs)(mapped(change, each) for each in inputs)
    if isinstance(inputs, dict):
        return {name: mapped(change, each) for name, each in inputs.items()}
    return inputs


def tensors(inputs: Inputs) -> Iterator[torch.Tensor]:
    """All tensors, in order."""
    if isinstance(inputs, torch.Tensor):
        yield inputs
    elif isinstance(inputs, tuple | list):
        for each in inputs:
            yield from tensors(each)
    elif isinstance(inputs, dict):
        for each in inputs.values():
            yield from tensors(each)


def count_of(inputs: Inputs) -> int:
    """How many images there are.

    Raises:
        DataError: there is no tensor to tell.
    """
    if isinstance(inputs, torch.Tensor):
        return len(inputs)
    if isinstance(inputs, list):
        return len(inputs)
    entries = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else ()
    for each in entries:
        if isinstance(each, torch.Tensor | list):
            return len(each)
    raise DataError(f"inputs of {type(inputs).__name__} hold no tensor whose first dimension counts the images")


def part_of(inputs: Inputs, part: slice | Sequence[int]) -> Inputs:
    """Some of the images, a range of them or those of these numbers."""
    if isinstance(inputs, torch.Tensor):
        return inputs[part if isinstance(part, slice) else list(part)]
    if isinstance(inputs, list):
        return inputs[part] if isinstance(part, slice) else [inputs[at] for at in part]
    if isinstance(inputs, tuple):
        return tuple(part_of(each, part) for each in inputs)
    if isinstance(inputs, dict):
        return {name: part_of(each, part) for name, each in inputs.items()}
    return inputs


def height_width(inputs: Inputs) -> tuple[int, int]:
    """Of the images, in pixels: of the first tensor with rows and columns.

    Raises:
        DataError: there is none.
    """
    for tensor in tensors(inputs):
        if tensor.dim() >= 3:
            return tensor.shape[-2], tensor.shape[-1]
    raise DataError("objects with places need inputs with rows and columns: give classes alone, or images")


def as_input(inputs: Inputs, model: nn.Module) -> Inputs:
    """On the model's device; floats in its type, ``uint8`` scaled to [0, 1]; never the images' own memory."""
    parameter = next(model.parameters())

    def ready(given: torch.Tensor) -> torch.Tensor:
        moved = given.to(parameter.device, non_blocking=True)
        if given.dtype == torch.uint8:
            return moved.to(parameter.dtype).div_(255)
        if given.is_floating_point():
            moved = moved.to(parameter.dtype)
        # A network may work in place on what it is given.
        return moved.clone() if moved.data_ptr() == given.data_ptr() else moved

    return mapped(ready, inputs)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What the network returns for them."""
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def with_gradients(inputs: Inputs) -> Inputs:
    """The same, followed by automatic differentiation from here on; a network may work in place on it."""
    return mapped(lambda each: each.detach().requires_grad_().clone() if each.is_floating_point() else each, inputs)


def finite(tensor: torch.Tensor) -> bool:
    """Whether all its numbers are numbers: one that is none makes all that a layer reads so."""
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(tensor.detach().isfinite().all())
