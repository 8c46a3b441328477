"""Stand-ins for modules of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name


def shuffle_unit(self: Any, x: torch.Tensor) -> torch.Tensor:
    """ShuffleNet's unit: the shuffle divides the number of channels it is given by two."""
    if self.stride == 1:
        left, right = x.chunk(2, dim=1)
    else:
        left, right = self.branch1(x), x
    return torch.channel_shuffle(torch.cat((left, self.branch2(right)), dim=1), 2)


def frozen_batch_norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Batch normalisation whose statistics never change, which the module works out by hand."""
    return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


STANDINS: dict[str, Callable[..., Any]] = {
    "torchvision.models.shufflenetv2.InvertedResidual": shuffle_unit,
    "torchvision.ops.misc.FrozenBatchNorm2d": frozen_batch_norm,
}
