"""What layers return as maps of cells, and their weights as rows that make a cell of what is read there.

A transposed convolution whose kernel is as large as its stride makes a block of cells of every cell that it reads, and
reads no other: as a map, its output has as many cells as its input, and a channel for each place in a block.
"""

from __future__ import annotations

from math import prod
from typing import cast

import torch
from torch import nn

Positions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Image, row and column of every sampled position, ``[N]`` int64 each."""
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def readable(module: nn.Module) -> bool:
    """Whether it can be shown what a module reads.

    That is a linear layer, a convolution of zero padding, or a transposed one whose kernel is as large as its stride.
    """
    if isinstance(module, nn.Linear):
        return True
    if isinstance(module, TRANSPOSED):
        plain = module.kernel_size == module.stride and module.groups == 1
        return plain and not any((*module.padding, *module.output_padding)) and all(d == 1 for d in module.dilation)
    is_conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return is_conv and module.padding_mode == "zeros"


def taps(layer: nn.Module) -> int:
    """Rows of :func:`weight_rows` that make one output channel."""
    return prod(cast(nn.ConvTranspose2d, layer).kernel_size) if isinstance(layer, TRANSPOSED) else 1


def weight_rows(layer: nn.Module) -> torch.Tensor:
    """``[outputs · taps, K]``, detached: times what is read for a position, plus the bias, they give the map there."""
    weight = cast(torch.Tensor, layer.weight).detach()
    return weight.flatten(1).T if isinstance(layer, TRANSPOSED) else weight.flatten(1)


def as_weight(layer: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Such rows in the shape of the layer's weight."""
    shape = cast(torch.Tensor, layer.weight).shape
    return rows.T.reshape(shape) if isinstance(layer, TRANSPOSED) else rows.reshape(shape)


def as_map(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """What a layer returned as ``[B, channels, H, W]``: all dimensions between but the last are rows."""
    if isinstance(layer, nn.Linear):
        output = output.movedim(-1, 1)
    elif isinstance(layer, TRANSPOSED):
        output = _gathered(output, cast(nn.ConvTranspose2d, layer).kernel_size)
    if output.dim() == 4:
        return output
    return output.reshape(*output.shape[:2], -1, output.shape[-1] if output.dim() > 2 else 1)


def _gathered(output: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    """``[B, O, *(size · k)]`` as ``[B, O · taps, *size]``."""
    split = [part for size, k in zip(output.shape[2:], kernel, strict=True) for part in (size // k, k)]
    dims = len(kernel)
    order = (0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
    return output.reshape(*output.shape[:2], *split).permute(order).flatten(1, 1 + dims)


def blocks_of(layer: nn.Module, x: torch.Tensor) -> tuple[int, ...]:
    """The size of what a transposed convolution makes of ``x`` where it makes a block of every cell, and no more."""
    kernel = cast(nn.ConvTranspose2d, layer).kernel_size
    return tuple(size * k for size, k in zip(x.shape[2:], kernel, strict=True))


def map_size(layer: nn.Module, output: torch.Tensor) -> tuple[int, int]:
    """Height and width of :func:`as_map`."""
    height, width = as_map(layer, output).shape[-2:]
    return height, width


def values_at(layer: nn.Module, output: torch.Tensor, where: Positions) -> torch.Tensor:
    """Of :func:`as_map` at these positions, ``[N, channels]``."""
    return _at(as_map(layer, output), where)


def read_at(layer: nn.Module, x: torch.Tensor, where: Positions) -> torch.Tensor:
    """What a layer that reads one cell for each of its map's reads at these positions, ``[N, channels]``."""
    return values_at(layer, x, where) if isinstance(layer, nn.Linear) else _at(_flat(x), where)


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x if x.dim() == 4 else x.reshape(*x.shape[:2], -1, x.shape[-1])


def _at(shown: torch.Tensor, where: Positions) -> torch.Tensor:
    image, row, column = (index.to(shown.device) for index in where)
    return shown[image, :, row, column]
