"""Pruners with the predecessor's faults: the suite has to find each where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from seqprune.graph import trace
from seqprune.plan import PrunePlan
from seqprune.surgery import mask
from seqprune.testing.trial import Inputs, Keep

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def half_applied(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Narrows the input of the next layer of the right width, and leaves the producer as it is."""
    widths = {name: _width(module, name) for name in keep}
    for name, stay in keep.items():
        _narrow(_reader(module, name, widths[name]), stay)
    return module


def zeroing(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Zeroes the channels, exactly, and removes none."""
    graph = trace(module, inputs)
    return mask(module, PrunePlan.from_keep(graph, keep), graph)


def back_to_front(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Removes rows from the back; the BatchNorm and the reader are the next modules of that width."""
    names = [name for name, _ in module.named_modules() if name in keep]
    for name in reversed(names):
        layer: Any = module.get_submodule(name)
        width = _width(module, name)
        index = torch.as_tensor(list(keep[name]))
        _narrow(_reader(module, name, width), keep[name])
        layer.weight = nn.Parameter(layer.weight.detach()[index])
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[index])
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(index))
        norm: Any = next((m for m in _behind(module, name) if isinstance(m, _NORMS) and m.num_features == width), None)
        if norm is not None:
            for part in ("weight", "bias"):
                if getattr(norm, part) is not None:
                    setattr(norm, part, nn.Parameter(getattr(norm, part).detach()[index]))
            norm.running_mean, norm.running_var = norm.running_mean[index], norm.running_var[index]
            norm.num_features = len(index)
    return module


def _width(module: nn.Module, name: str) -> int:
    layer: Any = module.get_submodule(name)
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _behind(module: nn.Module, name: str) -> list[nn.Module]:
    """The modules registered behind one."""
    modules = list(module.named_modules())
    place = next(index for index, (each, _) in enumerate(modules) if each == name)
    return [each for _, each in modules[place + 1 :]]


def _reader(module: nn.Module, name: str, width: int) -> nn.Module | None:
    """What is taken for the reader: the next layer of as many inputs."""
    for each in _behind(module, name):
        if isinstance(each, nn.Conv2d) and each.groups == 1 and each.in_channels == width:
            return each
        if isinstance(each, nn.Linear) and each.in_features == width:
            return each
    return None


def _narrow(reader: Any, stay: Sequence[int]) -> None:
    if reader is None:
        return
    reader.weight = nn.Parameter(reader.weight.detach()[:, list(stay)])
    setattr(reader, "in_features" if isinstance(reader, nn.Linear) else "in_channels", len(stay))
