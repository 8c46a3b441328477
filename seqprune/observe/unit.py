"""A convolution as a unit with the BatchNorm and the activation beside it, as detectors are built of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

ELEMENT_WISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish),
    *(nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softplus),
)


def batch_norm_of(model: nn.Module, conv: str) -> str | None:
    """The BatchNorm beside a convolution that takes its output, where there is exactly one of its width."""
    width = cast(nn.Conv2d, model.get_submodule(conv)).out_channels
    beside = [
        name
        for name, module in _beside(model, conv).items()
        if isinstance(module, nn.BatchNorm2d) and module.num_features == width
    ]
    return beside[0] if len(beside) == 1 else None


def activation_of(model: nn.Module, conv: str) -> nn.Module | None:
    """What acts on the BatchNorm's output, where a convolution, a BatchNorm and one activation stand alone together."""
    beside = _beside(model, conv).values()
    if batch_norm_of(model, conv) is None or sum(isinstance(module, nn.Conv2d) for module in beside) > 1:
        return None
    acting = [module for module in beside if isinstance(module, ELEMENT_WISE)]
    return acting[0] if len(acting) == 1 else None


def norm_scale(model: nn.Module, name: str) -> torch.Tensor:
    """``[outputs, 1]`` float64, what the BatchNorm behind a convolution multiplies its outputs with; 1 without one."""
    norm = batch_norm_of(model, name)
    if norm is None:
        conv = cast(nn.Conv2d, model.get_submodule(name))
        return torch.ones(conv.out_channels, 1, dtype=torch.float64)
    return affine(cast(nn.BatchNorm2d, model.get_submodule(norm)))[0].cpu()[:, None]


def affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """What a BatchNorm multiplies with in inference, and what it adds: ``[channels]`` float64 each."""
    mean, variance = (cast(torch.Tensor, t).double() for t in (norm.running_mean, norm.running_var))
    scale = norm.weight.detach().double() / (variance + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - mean * scale


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


def curve_of(model: nn.Module, name: str) -> Curve | None:
    """What follows a convolution, where that is a BatchNorm and an activation."""
    norm, activation = batch_norm_of(model, name), activation_of(model, name)
    if norm is None or activation is None:
        return None
    return Curve(*affine(cast(nn.BatchNorm2d, model.get_submodule(norm))), activation)


def _beside(model: nn.Module, conv: str) -> dict[str, nn.Module]:
    """By path, the children of the module that a convolution is a child of."""
    parent = conv.rpartition(".")[0]
    return {f"{parent}.{name}".lstrip("."): m for name, m in model.get_submodule(parent).named_children()}
