"""How much an error in each convolution matters in the end: one at a time is disturbed, and outputs are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import nn

from seqprune.refit import batch_norm_of

NOISE = 0.03
"""Variance of the disturbance, relative to that of the convolution's output."""
DAMPING = 0.5
"""Importance is raised to this power: a single disturbance tells less than its size says."""


def importance_of_layers(
    model: nn.Module,
    covariances: Mapping[str, torch.Tensor],
    distance: Callable[[nn.Module], float],
    *,
    noise: float = NOISE,
    damping: float = DAMPING,
    seed: int = 0,
) -> dict[str, float]:
    """By convolution, what ``distance`` says of a model in which its weights alone are disturbed, around 1.

    The weights are disturbed rather than the outputs: the error then follows the input, as that of removed channels
    does, and is not averaged away by the next convolution.

    Args:
        model: in inference mode; it is not changed.
        covariances: by name, ``[K, K]`` of the convolution's input patches.
        distance: of a changed model to the unchanged one.
        noise: variance of the error relative to the output's.
        damping: power the distances are raised to.
        seed: of the disturbances.
    """
    changed, random = deepcopy(model), torch.Generator().manual_seed(seed)
    found: dict[str, float] = {}
    for name, covariance in covariances.items():
        conv = cast(nn.Conv2d, changed.get_submodule(name))
        weight = conv.weight.detach().clone()
        flat = weight.double().cpu().flatten(1)
        error = torch.randn(flat.shape, generator=random, dtype=flat.dtype) * flat.std(1, keepdim=True)
        scale = norm_scale(model, name)
        size, whole = (output_variance(scale * w, covariance) for w in (error, flat))
        if not size > 0:
            found[name] = 0.0
            continue
        disturbed = flat + error * (noise * whole / size) ** 0.5
        with torch.no_grad():
            conv.weight.copy_(disturbed.reshape(weight.shape))
            found[name] = max(distance(changed), 0.0)
            conv.weight.copy_(weight)
    mean = sum(found.values()) / max(len(found), 1)
    return {name: (value / mean) ** damping if mean > 0 else 1.0 for name, value in found.items()}


def output_variance(weight: torch.Tensor, covariance: torch.Tensor) -> float:
    """Over all outputs of weights ``[outputs, K]``, where the input has covariance ``[K, K]``."""
    return float(((weight @ covariance) * weight).sum())


def norm_scale(model: nn.Module, name: str) -> torch.Tensor:
    """``[outputs, 1]`` float64, what the BatchNorm behind a convolution multiplies its outputs with; 1 without one."""
    norm = batch_norm_of(model, name)
    conv = cast(nn.Conv2d, model.get_submodule(name))
    if norm is None:
        return torch.ones(conv.out_channels, 1, dtype=torch.float64)
    found = cast(nn.BatchNorm2d, model.get_submodule(norm))
    variance = cast(torch.Tensor, found.running_var).double()
    return (found.weight.detach().double() / (variance + found.eps).sqrt()).cpu()[:, None]
