"""A network's example inputs in other sizes: what hangs on their sides or their number is seen only there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from seqprune.graph.values import map_tensors, tensors_in

SEVERAL = 3
"""A batch of one becomes so many: two are what a training pass takes."""
STEP = 32
"""More rows of a larger map: what the strides of most networks come to."""


def is_image(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_floating_point()


def other_sizes(inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The same maps at half of the size in another number, or alone at that size.

    Maps are the images, else sequences and volumes; where there are none, or only one size is taken, the number alone.
    """
    maps = _maps(inputs)
    if maps:
        sides = maps[0].shape[2:]
        half = resized(inputs, *(max(1, side // 2) for side in sides))
        yield other_batch(half)
        yield half
    yield other_batch(inputs)


def larger_sizes(inputs: tuple[Any, ...], step: int = 1) -> Iterator[tuple[Any, ...]]:
    """The same maps with more rows and columns, not alike: odd where they are even, else as even as they are.

    Of two of a batch at most, and not much more than three times as long, or by ``step`` and twice that: attention over
    a whole map grows as its square.
    """
    maps = _maps(inputs)
    if maps and maps[0].numel():
        sides = maps[0].shape[2:]
        steps = [max(step, min(STEP, 1 << side.bit_length() - 1)) for side in sides]
        for odd in (1, 0):
            longer = (side + by * (1 + at % 2) + odd for at, (side, by) in enumerate(zip(sides, steps, strict=True)))
            yield resized(several(inputs, min(2, len(maps[0]))), *longer)


def other_batches(inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Several of a batch that is neither one nor as many, as :func:`other_sizes` has none: smaller, or as they are."""
    if {1, SEVERAL} & _batch(inputs):
        return
    if maps := _maps(inputs):
        yield several(resized(inputs, *(max(1, side // 2) for side in maps[0].shape[2:])))
    yield several(inputs)


def resized(inputs: tuple[Any, ...], *sides: int) -> tuple[Any, ...]:
    """Maps of the same number of sides as given."""

    def one(tensor: torch.Tensor) -> torch.Tensor:
        fits = tensor.is_floating_point() and tensor.dim() == len(sides) + 2
        return nn.functional.interpolate(tensor, sides) if fits else tensor

    found: tuple[Any, ...] = map_tensors(one, inputs)
    return found


def other_batch(inputs: tuple[Any, ...], more: int = SEVERAL) -> tuple[Any, ...]:
    """The first of each batch, or ``more`` of it where it is alone."""
    return several(inputs, more if 1 in _batch(inputs) else 1)


def several(inputs: tuple[Any, ...], number: int = SEVERAL) -> tuple[Any, ...]:
    """So many of each batch, which is repeated where it has fewer."""
    first = _batch(inputs)

    def one(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.dim() or tensor.shape[0] not in first:
            return tensor
        return torch.cat([tensor] * -(-number // len(tensor)))[:number]

    found: tuple[Any, ...] = map_tensors(one, inputs)
    return found


def _maps(inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    """The images; where there are none, sequences and volumes of numbers."""
    found = tensors_in(inputs)
    images = [tensor for tensor in found if is_image(tensor)]
    return images or [t for t in found if t.is_floating_point() and t.dim() in (3, 5) and t.numel()]


def _batch(inputs: tuple[Any, ...]) -> set[int]:
    """How many there are in a batch of images, else in the first tensor; none where that has no number."""
    found = tensors_in(inputs)
    held = [t for t in found if is_image(t)] or [t for t in found if t.dim()][:1]
    return {tensor.shape[0] for tensor in held} - {0}
