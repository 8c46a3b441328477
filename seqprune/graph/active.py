"""Rows of weights: those of a layer's output channels, and which of them are not all zero."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from seqprune.errors import ModelError
from seqprune.graph.channels import BoolArray


def count_active_channels(layer: nn.Module) -> int:
    """Output channels of a convolution or linear layer with any weight that is not zero."""
    return int(active_channels(layer).sum())


def active_channels(layer: nn.Module) -> BoolArray:
    """``[channels]``, which output channels have any weight that is not zero."""
    active: BoolArray = weight_rows(layer).ne(0).any(1).cpu().numpy()
    return active


def weight_rows(layer: nn.Module, values: torch.Tensor | None = None) -> torch.Tensor:
    """``[channels, weights]``, the weights of each output channel of a convolution or linear layer.

    Args:
        layer: the convolution or linear layer.
        values: taken instead of the weights, in their shape: gradients.

    Raises:
        ModelError: there are none.
    """
    weight = getattr(layer, "weight", None) if values is None else values
    if not isinstance(weight, torch.Tensor) or is_lazy(weight) or weight.dim() < 2:
        raise ModelError(f"a {type(layer).__name__} has no rows of weights: give a convolution or a linear layer")
    weight = weight.detach()
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(layer.groups)])
    return weight.flatten(1)
