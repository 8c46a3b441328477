"""Contracts about tensors: how many channels, which, and in what order. None of them runs the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seqprune.budget.cost import parameters
from seqprune.graph.channels import Slice
from seqprune.testing.trial import ContractError, NotApplicable, Trial, attempt

Kept = npt.NDArray[np.intp]
STATED = ("out_channels", "out_features")
STATISTICS = ("running_mean", "running_var")


def returns(trial: Trial) -> None:
    """The pruner takes the network and the channels asked for, and returns a module."""
    if not trial.plan.layers:
        raise NotApplicable("no channel of this network may leave")
    found = attempt("returns", "the pruner fails", lambda: trial.pruned)
    if not isinstance(found, nn.Module):
        raise ContractError("returns", f"the pruner returns a {type(found).__name__}, not a module")


def smaller(trial: Trial) -> None:
    """The pruned network has fewer parameters."""
    before, after = parameters(trial.unpruned), parameters(trial.pruned)
    if not after < before:
        raise ContractError("smaller", f"{after:,} parameters of {before:,}: nothing left the network")


def channels(trial: Trial) -> None:
    """Every layer has as many channels as were asked for, and says so in its attributes."""
    compared = 0
    for layer in trial.graph.all_layers:
        module: Any = _found(trial.pruned, layer.name)
        weight = getattr(module, "weight", None)
        if module is None or not isinstance(weight, torch.Tensor):
            continue
        wanted = len(trial.plan.keep.get(layer.name, range(layer.channels)))
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        has = weight.shape[1] * module.groups if transposed else weight.shape[0]
        if has != wanted:
            raise ContractError(
                "channels", f"{layer.name} has {has} channels, {wanted} of {layer.channels} were to stay"
            )
        said = next((getattr(module, name) for name in STATED if hasattr(module, name)), has)
        if said != has:
            raise ContractError("channels", f"{layer.name} says that it has {said} channels, its weight has {has}")
        compared += 1
    if not compared:
        raise NotApplicable("the pruner gives the layers other names")


def batchnorm(trial: Trial) -> None:
    """Every BatchNorm follows its layer: the statistics of the channels that stay, of all of them and no other."""
    compared = 0
    for cut, kept in _cuts(trial):
        if cut.tensor not in STATISTICS:
            continue
        pair = _pair(trial, cut)
        if pair is None:
            continue
        before, after = pair
        compared += 1
        if after.shape[0] != len(kept):
            raise ContractError(
                "batchnorm", f"{cut.module} holds the {cut.tensor} of {after.shape[0]} channels, {len(kept)} stay"
            )
        if not torch.equal(after.sort().values, before[torch.from_numpy(kept)].sort().values):
            raise ContractError(
                "batchnorm", f"{cut.module} holds the {cut.tensor} of other channels than those that stay"
            )
    if not compared:
        raise NotApplicable("no BatchNorm lies behind a pruned layer, or it has another name")


def order(trial: Trial) -> None:
    """The channels that stay are those asked for, in the order they had."""
    compared = 0
    tensors: dict[tuple[str, str], list[tuple[Slice, Kept]]] = {}
    for cut, kept in _cuts(trial):
        tensors.setdefault((cut.module, cut.tensor), []).append((cut, kept))
    for cuts in tensors.values():
        pair = _pair(trial, cuts[0][0])
        if pair is None or len({cut.dim for cut, _ in cuts}) < len(cuts):
            continue
        for cut, kept in cuts:
            before, after = pair
            for other, stay in cuts:
                if other is not cut:
                    before = before.index_select(other.dim, torch.from_numpy(stay))
            compared += _in_order(cut, kept, before.movedim(cut.dim, 0), after.movedim(cut.dim, 0))
    if not compared:
        raise NotApplicable("no tensor has the width that was asked for, or it has another name")


def _in_order(cut: Slice, kept: Kept, before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether ``after`` could be compared, channel by channel; other widths are said by other contracts."""
    if after.shape[0] != len(kept) or after.shape[1:] != before.shape[1:]:
        return False
    for place, channel in enumerate(kept.tolist()):
        if not torch.equal(after[place], before[channel]):
            found = next((c for c in range(len(before)) if torch.equal(after[place], before[c])), None)
            seen = "no channel of the unpruned network" if found is None else f"channel {found}"
            raise ContractError(
                "order", f"{cut.module}.{cut.tensor}: at place {place} is {seen}, not channel {channel}"
            )
    return True


def _cuts(trial: Trial) -> Iterator[tuple[Slice, Kept]]:
    """What lost channels, and the positions that stay."""
    removed = trial.plan.removed_groups(trial.graph)
    grouped = {(cut.module, cut.tensor) for cut in trial.graph.slices if cut.groups.ndim == 2}
    for cut in trial.graph.slices:
        if cut.groups.ndim == 1 and removed[cut.groups].any() and (cut.module, cut.tensor) not in grouped:
            yield cut, np.flatnonzero(~removed[cut.groups])


def _pair(trial: Trial, cut: Slice) -> tuple[torch.Tensor, torch.Tensor] | None:
    after = getattr(_found(trial.pruned, cut.module), cut.tensor, None)
    if not isinstance(after, torch.Tensor):
        return None
    before = getattr(trial.unpruned.get_submodule(cut.module), cut.tensor)
    return before.detach(), after.detach()


def _found(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
