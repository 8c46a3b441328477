"""Modules whose calls cannot be watched, or whose weights are made anew in every call: what is done about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from seqprune.errors import ModelError
from seqprune.graph.given import check_network
from seqprune.graph.standins.operators import watched


def refuse(model: nn.Module) -> None:
    """Raises :class:`ModelError` for a network of which nothing could be followed until its user has changed it."""
    check_network(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the network is a ScriptModule (torch.jit), whose calls cannot be watched: give the plain module it was "
            "made from, and script the pruned one"
        )
    for path, module in model.named_modules():
        if any(map(torch.nn.parameter.is_lazy, module._parameters.values())):
            raise ModelError(
                f"{path or 'the network'} has no shape yet (a lazy layer): run the network once on an input"
            )
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                raise ModelError(
                    f"{path or 'the network'} makes its {hook._tensor_name} anew in every call, by a hook of "
                    f"torch.nn.utils.prune: call torch.nn.utils.prune.remove(module, {hook._tensor_name!r}) for it, "
                    "which keeps the zeros"
                )


def computed_weight(module: nn.Module) -> str:
    """Why the weight of a module is no parameter of it, and how to go on; empty where nothing is known of it."""
    if parametrize.is_parametrized(module):
        return "a parametrization; torch.nn.utils.parametrize.remove_parametrizations makes it plain"
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            norm = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
            return f"a hook of {norm}; torch.nn.utils.remove_{norm} makes it plain"
    return ""


class Scripted(nn.Module):
    """A ScriptModule inside a traced copy: one call that a trace sees, and does not follow."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.__dict__["wrapped"] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["wrapped"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return scripted((args, kwargs), self.__dict__["wrapped"])


@watched
def scripted(given: tuple[tuple[Any, ...], dict[str, Any]], module: torch.jit.ScriptModule) -> Any:
    return module(*given[0], **given[1])


def wrap_scripted(model: nn.Module) -> None:
    """Puts :class:`Scripted` in the place of every ScriptModule inside a copy that is to be traced."""
    for name, child in model._modules.items():
        if isinstance(child, torch.jit.ScriptModule):
            model._modules[name] = Scripted(child)
        elif child is not None:
            wrap_scripted(child)
