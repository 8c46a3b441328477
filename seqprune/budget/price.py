"""What channels cost: parameters or operations, of a whole plan and of every channel group on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray
from seqprune.graph.modes import inference
from seqprune.observe.inputs import Inputs, call, mapped
from seqprune.observe.watching import watching

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Cut:
    """A dimension of one parameter, and the groups along it."""

    tensor: int
    dim: int
    groups: IntArray


class Price:
    """Prices of the parameters of a network.

    Args:
        model: the network of ``graph``.
        graph: its channel graph.
        uses: by module path, how often an element of its weight is used in one forward pass; 1 and nothing else
            where it is left out, which counts parameters.
        in_all: what the whole costs, where that is more than its parameters are charged; the rest is paid in any case.

    Attributes:
        beside: that rest.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, uses: Mapping[str, float] | None = None, in_all: float = 0.0
    ) -> None:
        self.group_count = graph.group_count
        cuts: dict[tuple[str, str], list[tuple[int, IntArray]]] = {}
        for cut in graph.slices:
            cuts.setdefault((cut.module, cut.tensor), []).append((cut.dim, cut.groups))
        self.fixed = 0.0
        found: list[_Cut] = []
        shapes: list[tuple[int, ...]] = []
        prices: list[float] = []
        seen: set[int] = set()
        for path, module in model.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is None or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                price = 1.0 if uses is None else (uses.get(path, 0.0) if name == "weight" else 0.0)
                if price and (path, name) in cuts:
                    found += [_Cut(len(shapes), dim, groups) for dim, groups in cuts[path, name]]
                    shapes.append(tuple(parameter.shape))
                    prices.append(price)
                else:
                    self.fixed += price * parameter.numel()
        self._lay_out(found, shapes, prices)
        self.beside = max(0.0, in_all - self.total(np.zeros(self.group_count, bool)))
        self.fixed += self.beside

    def _lay_out(self, cuts: Sequence[_Cut], shapes: Sequence[tuple[int, ...]], prices: Sequence[float]) -> None:
        """All cuts end to end, so that a step of a choice costs a few passes over arrays and no loop."""
        dims = max((len(shape) for shape in shapes), default=1)
        self._prices = np.array(prices, np.float64)
        self._shapes = np.array([shape + (1,) * (dims - len(shape)) for shape in shapes], np.float64).reshape(-1, dims)
        self._tensor = np.array([cut.tensor for cut in cuts], np.intp)
        self._dim = np.array([cut.dim for cut in cuts], np.intp)
        self._blocks = np.array([1 if cut.groups.ndim == 1 else len(cut.groups) for cut in cuts], np.float64)
        self._counts = np.array([cut.groups.size for cut in cuts], np.intp)
        self._ends = np.concatenate([[0], self._counts.cumsum()])
        self._groups: IntArray = np.concatenate([np.empty(0, np.intp), *(cut.groups.ravel() for cut in cuts)])

    def _sizes(self, removed: BoolArray) -> FloatArray:
        """``[tensors, dims]``: positions that stay; a mean over convolution groups where they read other channels."""
        stay = np.concatenate([[0], (~removed[self._groups]).cumsum()])[self._ends]
        sizes: FloatArray = self._shapes.copy()
        sizes[self._tensor, self._dim] = np.diff(stay) / self._blocks
        return sizes

    def total(self, removed: BoolArray) -> float:
        """Of what stays."""
        return self.fixed + float((self._prices * self._sizes(removed).prod(1)).sum())

    @cached_property
    def whole(self) -> float:
        """Of the unpruned network."""
        return self.total(np.zeros(self.group_count, bool))

    def share(self, removed: BoolArray) -> float:
        """Of what stays in the whole."""
        return self.total(removed) / self.whole

    def savings(self, removed: BoolArray) -> FloatArray:
        """``[group_count]``: what removing each group alone would save now."""
        others = self._sizes(removed)[self._tensor]
        others[np.arange(len(others)), self._dim] = 1
        each = self._prices[self._tensor] * others.prod(1) / self._blocks
        found = np.bincount(self._groups, np.repeat(each, self._counts), self.group_count).astype(np.float64)
        found[removed] = 0
        return found


def operations(model: nn.Module, example_inputs: Inputs) -> dict[str, float]:
    """By module path, how often each weight of a convolution or linear layer is multiplied in a forward pass."""
    uses: dict[str, float] = {}

    def count(path: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        at = x if isinstance(layer, nn.modules.conv._ConvTransposeNd) else output
        times = at[0].numel() / (at.shape[-1] if isinstance(layer, nn.Linear) else at.shape[1])
        uses[path] = uses.get(path, 0.0) + times

    weighted = nn.modules.conv._ConvNd | nn.Linear
    layers = [path for path, module in model.named_modules() if isinstance(module, weighted)]
    with watching(model, layers, count), inference(model):
        call(model, mapped(torch.clone, example_inputs))
    return uses
