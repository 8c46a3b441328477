"""The channel graph of an Ultralytics network, and images such as it takes."""

from __future__ import annotations

from math import ceil

import torch
from torch import nn

from seqprune.graph import ChannelGraph, trace

_QUERIED = (8, 16, 32)
"""Strides of the maps that RT-DETR chooses its queries from, in pixels."""


def trace_detector(model: nn.Module) -> ChannelGraph:
    """Channel graph of an Ultralytics network, traced on the smallest image all its strides divide.

    Detectors of queries choose these from the cells, of which older releases need as many.
    """
    side, queries = 2 * _stride(model), max(int(getattr(module, "num_queries", 0)) for module in model.modules())
    while sum((side // stride) ** 2 for stride in _QUERIED) < queries:
        side += _stride(model)
    return trace(model, grey_image(model, side))


def grey_image(model: nn.Module, imgsz: int) -> torch.Tensor:
    """``[1, channels, side, side]``, in the model's precision and on its device; all values 0.5.

    The side is ``imgsz`` pixels rounded up to a multiple of the model's strides, as images are padded.
    """
    first, side = next(model.parameters()), padded(imgsz, _stride(model))
    return torch.full((1, image_channels(model), side, side), 0.5, dtype=first.dtype, device=first.device)


def padded(imgsz: int, stride: int) -> int:
    """``imgsz`` pixels rounded up to a multiple of ``stride``."""
    return ceil(imgsz / stride) * stride


def image_channels(model: nn.Module) -> int:
    """Of the images that a network takes."""
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    return first.in_channels


def _stride(model: nn.Module) -> int:
    """The largest, in pixels; 1 where a network has none to say."""
    return int(max(getattr(model, "stride", (1,))))
