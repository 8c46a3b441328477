"""What channels cost: parameters or operations, of a whole plan and of every channel group on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray
from seqprune.observe.inputs import Inputs, call, mapped

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Tensor:
    """One parameter: the price of an element, its sizes, and the groups along the dimensions that are cut."""

    price: float
    shape: tuple[int, ...]
    cuts: tuple[tuple[int, IntArray], ...]

    def kept(self, removed: BoolArray) -> list[float]:
        """Positions that stay in each dimension; a mean over convolution groups where they read other channels."""
        sizes = [float(size) for size in self.shape]
        for dim, groups in self.cuts:
            stay = ~removed[groups]
            sizes[dim] = float(stay.sum()) if groups.ndim == 1 else float(stay.sum(1).mean())
        return sizes


class Price:
    """Prices of the parameters of a network.

    Args:
        model: the network of ``graph``.
        graph: its channel graph.
        uses: by module path, how often an element of its weight is used in one forward pass; 1 and nothing else
            where it is left out, which counts parameters.
        in_all: what the whole costs, where that is more than its parameters are charged; the rest is paid in any case.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, uses: Mapping[str, float] | None = None, in_all: float = 0.0
    ) -> None:
        self.group_count = graph.group_count
        cuts: dict[tuple[str, str], list[tuple[int, IntArray]]] = {}
        for cut in graph.slices:
            cuts.setdefault((cut.module, cut.tensor), []).append((cut.dim, cut.groups))
        self.fixed = 0.0
        self.tensors: list[_Tensor] = []
        seen: set[int] = set()
        for path, module in model.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is None or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                price = 1.0 if uses is None else (uses.get(path, 0.0) if name == "weight" else 0.0)
                if (path, name) in cuts:
                    self.tensors.append(_Tensor(price, tuple(parameter.shape), tuple(cuts[path, name])))
                else:
                    self.fixed += price * parameter.numel()
        self.fixed += max(0.0, in_all - self.total(np.zeros(self.group_count, bool)))

    def total(self, removed: BoolArray) -> float:
        """Of what stays."""
        return self.fixed + sum(t.price * float(np.prod(t.kept(removed))) for t in self.tensors)

    @cached_property
    def whole(self) -> float:
        """Of the unpruned network."""
        return self.total(np.zeros(self.group_count, bool))

    def share(self, removed: BoolArray) -> float:
        """Of what stays in the whole."""
        return self.total(removed) / self.whole

    def savings(self, removed: BoolArray) -> FloatArray:
        """``[group_count]``: what removing each group alone would save now."""
        found: FloatArray = np.zeros(self.group_count)
        for tensor in self.tensors:
            if not tensor.price:
                continue
            sizes = tensor.kept(removed)
            for dim, groups in tensor.cuts:
                others = float(np.prod(sizes[:dim] + sizes[dim + 1 :]))
                share = 1 if groups.ndim == 1 else 1 / len(groups)
                np.add.at(found, groups.ravel(), tensor.price * others * share)
        found[removed] = 0
        return found


def operations(model: nn.Module, example_inputs: Inputs) -> dict[str, float]:
    """By module path, how often each weight of a convolution or linear layer is multiplied in a forward pass."""
    uses: dict[str, float] = {}
    handles = []
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):

            def count(each: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor, path: str = path) -> None:
                at = inputs[0] if isinstance(each, nn.modules.conv._ConvTransposeNd) else output
                times = at[0].numel() / (at.shape[-1] if isinstance(each, nn.Linear) else at.shape[1])
                uses[path] = uses.get(path, 0.0) + times

            handles.append(module.register_forward_hook(count))
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            call(model.eval(), mapped(torch.clone, example_inputs))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return uses
