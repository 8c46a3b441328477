"""How much an error in each convolution matters in the end: what it costs there, at the size of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import cast

import torch
from torch import nn

DAMPING = 0.75
"""Costs are raised to this power: later layers are fitted to make up for some of what earlier ones lose, and the more
is removed, the less a cost for small errors says."""

MOST_FITTED = 0.9
"""Effective parameters for a sample, at most: beyond, all that is known of an error is that it is large."""


def importance_of_layers(
    model: nn.Module,
    covariances: Mapping[str, torch.Tensor],
    curvature: Mapping[str, torch.Tensor],
    damping: float = DAMPING,
) -> dict[str, float]:
    """By convolution, what it costs to lose the same share of each output's variance: Σ_c curvature_c · Var(y_c).

    Args:
        model: the unpruned network.
        covariances: by name, ``[K, K]`` of the convolution's input patches.
        curvature: by name, ``[outputs]``, what a squared error in each output costs; see
            :mod:`seqprune.observe.relevance`.
        damping: the power that costs are raised to.

    Returns:
        Numbers around 1. A convolution that was not asked about, or whose errors cost nothing in what was asked, is
        like the one in the middle: that says more of the question than of the convolution.
    """
    found = {}
    for name, covariance in covariances.items():
        weight = cast(nn.Conv2d, model.get_submodule(name)).weight.detach().double().cpu().flatten(1)
        variance = ((weight @ covariance) * weight).sum(1)
        found[name] = float((curvature[name] * variance).sum()) if name in curvature else 0.0
    known = [cost for cost in found.values() if cost > 0]
    middle = median(known) if known else 1.0
    return {name: (cost / middle) ** damping if cost > 0 else 1.0 for name, cost in found.items()}


def effective_parameters(covariance: torch.Tensor, ridge: float) -> float:
    """Of a ridge regression on inputs of ``covariance`` ``[K, K]``: tr(H (H + λ I)⁻¹), in [0, K].

    ``λ`` is ``ridge``, positive, times the mean of the diagonal. Nothing where nothing varies. (T. Hastie,
    R. Tibshirani, J. Friedman, "The elements of statistical learning", 2009, section 3.4.1.)
    """
    penalty = ridge * float(covariance.diagonal().mean())
    if penalty <= 0:
        return 0.0
    size = len(covariance)
    damped = covariance.double() + penalty * torch.eye(size, dtype=torch.float64)
    return size - penalty * float(torch.cholesky_inverse(torch.linalg.cholesky(damped)).diagonal().sum())


def unseen(parameters: float, samples: float) -> float:
    """How many times the error of a fit is on samples that it has not seen: (n + d) / (n − d), 1 or more.

    With ``d`` effective parameters and ``n`` samples the error shrinks by 1 − d/n where the fit has looked, and grows
    by 1 + d/n elsewhere (H. Akaike, "Statistical predictor identification", 1970: the final prediction error).
    """
    share = min(parameters / samples, MOST_FITTED)
    return (1 + share) / (1 - share)
