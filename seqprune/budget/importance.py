"""How much an error in each convolution matters in the end: what it costs there, at the size of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import torch
from torch import nn

from seqprune.observe.maps import weight_rows

DAMPING = 0.75
"""Costs are raised to this power: later layers are fitted to make up for some of what earlier ones lose, and the more
is removed, the less a cost for small errors says."""


def variances(model: nn.Module, name: str, covariance: torch.Tensor) -> torch.Tensor:
    """``[outputs]``, of a convolution's outputs where its input patches have ``covariance``.

    That is ``[K, K]``, or ``[groups, K, K]`` of a convolution in groups.
    """
    weight = weight_rows(model.get_submodule(name)).to(covariance)
    covariances = covariance.reshape(-1, *covariance.shape[-2:])
    parts = zip(weight.chunk(len(covariances)), covariances, strict=True)
    return torch.cat([((rows @ its) * rows).sum(1) for rows, its in parts])


def importance_of_layers(
    varies: Mapping[str, torch.Tensor],
    curvature: Mapping[str, torch.Tensor],
    damping: float = DAMPING,
    together: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, float]:
    """By convolution, what it costs to lose the same share of each output's variance: Σ_c curvature_c · Var(y_c).

    Args:
        varies: by name, ``[outputs]``, their variances.
        curvature: by name, ``[outputs]``, what a squared error in each output costs; see
            :mod:`seqprune.observe.relevance`.
        damping: the power that costs are raised to.
        together: by name, ``[outputs]``, the cost where errors of all positions add up, which goes before that of
            single ones.

    Returns:
        Numbers around 1. A convolution that was not asked about, or whose errors cost nothing in what was asked, is
        like the one in the middle: that says more of the question than of the convolution.
    """
    found = {}
    for name, variance in varies.items():
        found[name] = float((curvature[name] * variance.cpu()).sum()) if name in curvature else 0.0
        if together and name in together:
            found[name] = float(together[name].sum())
    known = [cost for cost in found.values() if cost > 0]
    middle = median(known) if known else 1.0
    return {name: (cost / middle) ** damping if cost > 0 else 1.0 for name, cost in found.items()}
