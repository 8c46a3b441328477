"""A layer as a unit with the BatchNorm and the activation behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from seqprune.observe.maps import weight_rows


@dataclass(frozen=True)
class Unit:
    """What alone reads a layer's output, and what alone reads that.

    Attributes:
        norm: module path of a BatchNorm.
        activation: an element-wise activation behind the layer, or behind its BatchNorm.
        shortcut: module path of what reads a tensor, before the layer runs, that is then added to what comes of the
            layer, where no activation lies between.
    """

    norm: str | None = None
    activation: nn.Module | None = None
    shortcut: str | None = None

    def affine(self, model: nn.Module, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What the BatchNorm multiplies with in inference, and what it adds: ``[outputs]`` float64 each; 1 and 0."""
        if self.norm is not None:
            return affine(cast(nn.BatchNorm2d, model.get_submodule(self.norm)))
        weight = weight_rows(model.get_submodule(layer))
        ones = torch.ones(len(weight), dtype=torch.float64, device=weight.device)
        return ones, torch.zeros_like(ones)

    def curve(self, model: nn.Module, layer: str) -> Curve | None:
        """What becomes of the layer's output, where an activation follows."""
        return None if self.activation is None else Curve(*self.affine(model, layer), self.activation)


def affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """What a BatchNorm multiplies with in inference, and what it adds: ``[channels]`` float64 each."""
    mean, variance = (cast(torch.Tensor, t).double() for t in (norm.running_mean, norm.running_var))
    scale = (
        (variance + norm.eps).rsqrt()
        if norm.weight is None
        else norm.weight.detach().double() / (variance + norm.eps).sqrt()
    )
    return scale, (0 if norm.bias is None else norm.bias.detach().double()) - mean * scale


def slope_of(activation: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The derivative of an element-wise activation at ``x``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(activation(x.clone()).sum(), x)  # a clone, as it may work in place
    return found


@dataclass(frozen=True)
class Curve:
    """A BatchNorm's ``scale`` and ``shift``, ``[outputs]`` float64, and the activation behind it."""

    scale: torch.Tensor
    shift: torch.Tensor
    activation: nn.Module

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.activation(z.clone()))  # a clone, as it may work in place
