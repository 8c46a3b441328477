"""Ultralytics' networks as others' pruners can follow them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import C2f, Conv

from seqprune.errors import ModelError
from seqprune.graph.copying import copied
from seqprune.yolo.files.networks import forget_inputs

_UNFOLLOWED = ("Attention", "AAttn", "RepVGGDW")


class SplitC2f(nn.Module):
    """A C2f, equal to the one it is made of, whose first convolution is two: Torch-Pruning loses count in ``chunk``."""

    def __init__(self, block: C2f) -> None:
        super().__init__()
        self.first, self.second = _rows(block.cv1, slice(None, block.c)), _rows(block.cv1, slice(block.c, None))
        self.m, self.cv2 = block.m, block.cv2
        for name in ("i", "f", "type", "np"):  # where Ultralytics' network keeps its wiring
            if hasattr(block, name):
                setattr(self, name, getattr(block, name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As in a C2f."""
        parts = [self.first(x), self.second(x)]
        for branch in self.m:
            parts.append(branch(parts[-1]))
        return self.cv2(torch.cat(parts, 1))  # type: ignore[no-any-return]


def _rows(unit: Conv, rows: slice) -> nn.Module:
    """Some output channels of a convolution with BatchNorm."""
    part: Any = copied(unit)
    part.conv.weight = nn.Parameter(unit.conv.weight.detach()[rows].clone())
    part.conv.out_channels = part.bn.num_features = len(part.conv.weight)
    for name in ("weight", "bias"):
        setattr(part.bn, name, nn.Parameter(getattr(unit.bn, name).detach()[rows].clone()))
    for name in ("running_mean", "running_var"):
        setattr(part.bn, name, getattr(unit.bn, name)[rows].clone())
    return part  # type: ignore[no-any-return]


def split_c2f(model: nn.Module) -> nn.Module:
    """A copy in which every C2f is a :class:`SplitC2f`; it computes the same."""
    copy = copied(model)
    for name, block in list(copy.named_modules()):
        if isinstance(block, C2f):
            parent, _, child = name.rpartition(".")
            setattr(copy.get_submodule(parent), child, SplitC2f(block))
    return copy


def followable(model: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    """A copy that Torch-Pruning can follow, and its head, which stays as it is.

    Raises:
        ModelError: it cannot follow this network.
    """
    if strange := {type(m).__name__ for m in model.modules()} & set(_UNFOLLOWED):
        raise ModelError(f"Torch-Pruning does not follow {min(strange)}: compare it on YOLOv5u or YOLOv8")
    whole: Any = split_c2f(model).eval()
    forget_inputs(whole)
    return whole, [whole.model[-1]]
