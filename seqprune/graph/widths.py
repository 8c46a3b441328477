"""Attributes in which modules hold a width that must follow their weights.

A C2f splits by ``self.c`` when it is exported, and its ``c`` is half of what its first convolution makes. Such facts
cannot be read from a run; families of modules state them once, by qualified class name, and whoever traces or compacts
relies on them. Subclasses inherit what their bases state, where it holds of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from seqprune.graph.facts import WIDTH_ATTRIBUTES

Widths = Mapping[str, Mapping[str, tuple[str, int]]]

_REGISTERED: dict[str, Mapping[str, tuple[str, int]]] = dict(WIDTH_ATTRIBUTES)


def register(widths: Widths) -> None:
    """Adds facts: ``{"pkg.C2f": {"c": ("cv1.conv", 2)}}`` means ``c = cv1.conv.out_channels // 2``."""
    _REGISTERED.update(widths)


def held(module: nn.Module) -> dict[str, tuple[str, int]]:
    """The width attributes of a module that are as its class, or a base of it, states; ask before weights change."""
    stated: dict[str, tuple[str, int]] = {}
    for kind in reversed(type(module).__mro__):
        stated |= _REGISTERED.get(f"{kind.__module__}.{kind.__qualname__}", {})
    return {name: fact for name, fact in stated.items() if _holds(module, name, *fact)}


def known(module: nn.Module) -> bool:
    """Whether the module is of a class whose code was read, with the facts that are stated here."""
    return f"{type(module).__module__}.{type(module).__qualname__}" in WIDTH_ATTRIBUTES


def update(module: nn.Module, facts: Mapping[str, tuple[str, int]]) -> None:
    """Sets the width attributes of a module from the weights it has now."""
    for attribute, (source, parts) in facts.items():
        setattr(module, attribute, _channels(module.get_submodule(source)) // parts)


def _holds(module: nn.Module, attribute: str, source: str, parts: int) -> bool:
    try:
        channels = _channels(module.get_submodule(source))
    except AttributeError:  # a subclass may have made its layers otherwise
        return False
    return bool(vars(module).get(attribute, channels // parts) == channels // parts)


def _channels(layer: Any) -> int:
    """What a layer makes, by its weight: the attribute that says so is watched while a network is traced."""
    weight = layer.weight
    return int(weight.shape[1] * layer.groups if getattr(layer, "transposed", False) else weight.shape[0])


def follow(module: nn.Module) -> None:
    """Sets the attributes of torch's own modules that repeat a shape."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        if module.groups == module.in_channels:
            module.groups = weight.shape[0]
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.groups > 1 and module.groups == module.in_channels:
            multiplier = module.out_channels // module.groups
            module.groups = module.in_channels = weight.shape[0] // multiplier
        else:
            module.in_channels = weight.shape[1] * module.groups
        module.out_channels = weight.shape[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
