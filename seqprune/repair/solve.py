"""Ridge regression from second moments, towards the weights as they were."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from seqprune.graph.channels import BoolArray
from seqprune.observe.patches import SecondMoments


def solve(
    weight: torch.Tensor, moments: SecondMoments, inputs: BoolArray | None, ridge: float | None, offset: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights that reproduce the targets best, convolution group by convolution group.

    Args:
        weight: ``[outputs, K]`` float64, the original ones.
        moments: of patches and targets.
        inputs: ``[channels]``, or ``[conv_groups, channels]``, which inputs stay; all where it is left out.
        ridge: relative to the mean variance of the patches; ``None`` leaves the weights as they are.
        offset: whether there is a bias to take the means; without one, products are taken around zero.

    Returns:
        Weights ``[outputs, K]``, those of removed inputs as they were, and the offsets ``[outputs]``.
    """
    groups, size = len(moments.products), weight.shape[1]
    rows = weight.reshape(groups, -1, size).clone()
    shift = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
    for stay, which in _alike(inputs, groups, size):
        mean, target = moments.mean[which][:, stay], moments.target_mean[which]
        products = moments.products[which][:, stay][:, :, stay] / moments.count
        cross = moments.cross[which][:, :, stay] / moments.count
        if not offset:
            products = products + mean[:, :, None] * mean[:, None]
            cross = cross + target[:, :, None] * mean[:, None]
        old = rows[which][:, :, stay]
        if ridge is not None and len(stay):
            penalty = ridge * products.diagonal(dim1=1, dim2=2).mean(1)
            # Where nothing varies, nothing can be fitted: any penalty leaves the weights as they are.
            penalty = torch.where(penalty > 0, penalty, 1.0)[:, None, None]
            left = products + penalty * torch.eye(len(stay), dtype=rows.dtype, device=rows.device)
            old = torch.linalg.solve(left, (cross + penalty * old).mT).mT
            rows[which[:, None], :, stay] = old.transpose(1, 2)
        shift[which] = target - (old @ mean[:, :, None])[:, :, 0]
    return rows.reshape(weight.shape), shift.flatten()


def columns_of(inputs: BoolArray | None, size: int) -> torch.Tensor:
    """``[size]``, the columns of the input channels that stay; all where it is left out."""
    if inputs is None:
        return torch.ones(size, dtype=torch.bool)
    return torch.from_numpy(np.repeat(inputs, size // len(inputs)))


def _alike(inputs: BoolArray | None, groups: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The columns that stay, and the convolution groups of which they do."""
    if inputs is None or inputs.ndim == 1:
        yield columns_of(inputs, size).nonzero().flatten(), torch.arange(groups)
        return
    own, of = np.unique(inputs, axis=0, return_inverse=True)
    for number, each in enumerate(own):
        yield columns_of(each, size).nonzero().flatten(), torch.from_numpy(np.flatnonzero(of.ravel() == number))


__all__ = ["columns_of", "solve"]
