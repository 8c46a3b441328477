"""The channel graph of an Ultralytics network."""

from __future__ import annotations

import torch
from torch import nn

from seqprune.graph import ChannelGraph, trace


def trace_detector(model: nn.Module) -> ChannelGraph:
    """Channel graph of an Ultralytics network, traced on the smallest image all its strides divide."""
    size = 2 * int(max(model.stride))  # type: ignore[arg-type]
    parameter = next(model.parameters())
    return trace(
        model, torch.zeros(1, image_channels(model), size, size, dtype=parameter.dtype, device=parameter.device)
    )


def image_channels(model: nn.Module) -> int:
    """Of the images that a network takes."""
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    return first.in_channels
