"""A network's example inputs in other sizes: what hangs on their sides or their number is seen only there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from seqprune.graph.values import map_tensors, tensors_in


def is_image(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_floating_point()


def other_sizes(inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The same images at half of the size in another number, alone at that size, or with more rows and columns."""
    images = [t for t in tensors_in(inputs) if is_image(t)]
    if not images:
        return
    height, width = images[0].shape[2:]
    half = resized(inputs, max(1, height // 2), max(1, width // 2))
    yield other_batch(half)
    yield half
    yield resized(inputs, height + 32, width + 64)


def resized(inputs: tuple[Any, ...], height: int, width: int) -> tuple[Any, ...]:
    def one(tensor: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(tensor, (height, width)) if is_image(tensor) else tensor

    resized: tuple[Any, ...] = map_tensors(one, inputs)
    return resized


def other_batch(inputs: tuple[Any, ...], more: int = 2) -> tuple[Any, ...]:
    """The first of each batch, or ``more`` of it where it is alone."""
    first = {t.shape[0] for t in tensors_in(inputs) if is_image(t)}

    def one(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.dim() or tensor.shape[0] not in first:
            return tensor
        return torch.cat([tensor] * more) if len(tensor) == 1 else tensor[:1]

    changed: tuple[Any, ...] = map_tensors(one, inputs)
    return changed
