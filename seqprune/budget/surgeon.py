"""Second-order greedy removal over the whole network: the channels whose loss is least for what they save.

B. Hassibi, D. Stork, "Second order derivatives for network pruning: optimal brain surgeon", NIPS 1992, on the error of
refitted layers, as E. Frantar, D. Alistarh, "Optimal brain compression", NeurIPS 2022, here for channels.

For every input tensor with second moments ``H`` (plus a ridge) and the stacked weights ``W`` of all convolutions that
read it, removing the columns ``S`` and refitting the others costs ``tr(W_S (H⁻¹_SS)⁻¹ W_Sᵀ)``. The rows come scaled, so
that losses of different layers can be added. A wide layer makes up for what it lost on the few objects that it is
fitted to, and less on others: where it is known how many samples that fit has, losses are those on unseen ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from seqprune.graph.channels import Balance, BoolArray, IntArray
from seqprune.select.moments import FloatArray

RIDGE = 3e-3
"""Of the mean of a covariance's diagonal, in choice and fit alike: what is chosen is what will be fitted."""
MOST_FITTED = 0.9
"""Effective parameters for a sample, at most: beyond, all that is known of an error is that it is large."""


@dataclass(frozen=True)
class Reader:
    """One convolution that reads a source.

    Attributes:
        weight: ``[outputs, K]``, rows scaled by what an error in that output matters.
        groups: ``[outputs]``, the channel group each output belongs to.
        samples: as how many its fit has; without end, it does as well elsewhere.
    """

    weight: torch.Tensor
    groups: IntArray
    samples: float = math.inf


@dataclass(frozen=True)
class Source:
    """One input tensor as some convolutions of equal geometry read it.

    Attributes:
        products: ``[K, K]`` covariance of its patches, ``K`` = channels × kernel.
        groups: ``[channels]``, the channel group of each channel.
        readers: the convolutions.
    """

    products: torch.Tensor
    groups: IntArray
    readers: tuple[Reader, ...]


def effective_parameters(inverse: torch.Tensor, penalty: float) -> float:
    """Of a ridge regression on inputs of covariance ``H`` ``[K, K]``: tr(H (H + λ I)⁻¹) = K − λ tr((H + λ I)⁻¹).

    Between 0 and K. ``inverse`` is (H + λ I)⁻¹, ``penalty`` is λ. (T. Hastie, R. Tibshirani, J. Friedman, "The elements
    of statistical learning", 2009, section 3.4.1.)
    """
    return len(inverse) - penalty * float(inverse.diagonal().sum())


def unseen(parameters: float, samples: float) -> float:
    """How many times the error of a fit is on samples that it has not seen: (n + d) / (n − d), 1 or more.

    With ``d`` effective parameters and ``n`` samples the error shrinks by 1 − d/n where the fit has looked, and grows
    by 1 + d/n elsewhere (H. Akaike, "Statistical predictor identification", 1970: the final prediction error).
    """
    share = min(parameters / samples, MOST_FITTED)
    return (1 + share) / (1 - share)


@dataclass
class _State:
    """A source while channels leave it."""

    inverse: torch.Tensor
    weight: torch.Tensor
    rows: IntArray  # channel group of each row of ``weight``
    columns: dict[int, torch.Tensor]  # by alive group, its columns
    costs: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Source, free: BoolArray, gone: BoolArray, ridge: float) -> _State:
        kernel = len(source.products) // len(source.groups)
        stay = torch.from_numpy(np.repeat(~gone[source.groups], kernel))
        groups = source.groups[~gone[source.groups]]
        products = source.products.double()[stay][:, stay]
        covariance = products.clone()
        mean = float(covariance.diagonal().mean())
        # Where nothing varies the inverse means nothing, and whatever is removed costs nothing.
        penalty = ridge * mean if mean > 0 else 1.0
        covariance.diagonal().add_(penalty)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        parameters = effective_parameters(inverse, penalty)
        weights = []
        for reader in source.readers:
            weight = reader.weight.double()[:, stay] * unseen(parameters, reader.samples) ** 0.5
            weight[torch.from_numpy(gone[reader.groups])] = 0
            weights.append(weight)
        columns = {}
        for group in np.unique(groups[free[groups]]).tolist():
            channels = torch.from_numpy(np.flatnonzero(groups == group))
            columns[group] = (channels[:, None] * kernel + torch.arange(kernel)).flatten()
        return cls(inverse, torch.cat(weights), np.concatenate([r.groups for r in source.readers]), columns)

    def rescore(self) -> None:
        """The costs of all alive groups, those with equally many columns at once."""
        by_size: dict[int, list[int]] = {}
        for group, columns in self.columns.items():
            by_size.setdefault(len(columns), []).append(group)
        for groups in by_size.values():
            index = torch.stack([self.columns[g] for g in groups])
            blocks = self.inverse[index[:, :, None], index[:, None, :]]
            weights = self.weight[:, index].permute(1, 2, 0)
            costs = (weights * torch.linalg.solve(blocks, weights)).sum((1, 2))
            self.costs.update(zip(groups, costs.tolist(), strict=True))

    def remove_inputs(self, group: int) -> None:
        """Takes columns out; the weights that stay are the refitted ones."""
        columns = self.columns.pop(group)
        del self.costs[group]
        gain = torch.linalg.solve(self.inverse[columns[:, None], columns], self.inverse[columns])
        for matrix in (self.weight, self.inverse):
            matrix.addmm_(matrix[:, columns], gain, alpha=-1)

    def remove_outputs(self, group: int) -> None:
        """What a removed output would have computed does not matter any more."""
        self.weight[torch.from_numpy(np.flatnonzero(self.rows == group))] = 0


@dataclass(frozen=True)
class Removal:
    """One step of the greedy order: the groups that leave together, and the loss that they add one by one, summed.

    Of balanced halves that stand in for each other the loss together is greater. Choosing the second by what it adds to
    the first left YOLOv8n's counts and accuracy as they were at 60 % of the parameters: the ridge keeps pairs apart.
    """

    groups: tuple[int, ...]
    loss: float


def removal_order(
    sources: list[Source],
    free: BoolArray,
    balances: tuple[Balance, ...],
    layers: tuple[IntArray, ...],
    savings: Callable[[BoolArray], FloatArray],
    stop: Callable[[BoolArray], bool],
    *,
    removed: BoolArray | None = None,
    floor: float = 0.1,
    ridge: float = RIDGE,
) -> list[Removal]:
    """Removes channel groups one unit at a time, least loss per saving first, until ``stop`` says so or none is left.

    Args:
        sources: second moments and weights of every convolution's input.
        free: ``[group_count]``, groups that may be removed.
        balances: sections of which equally many must stay; a unit takes the cheapest of each.
        layers: for every layer the groups of its channels; a share of ``floor``, and at least one, stays.
        savings: ``[group_count]`` of what removing each group saves, given those removed so far.
        stop: asked before every step.
        removed: groups that are gone already.
        floor: least share of a layer's channels that stays.
        ridge: added to the diagonal, relative to its mean.
    """
    gone = np.zeros(len(free), bool) if removed is None else removed.copy()
    states = [_State.of(source, free, gone, ridge) for source in sources]
    reading: dict[int, list[_State]] = {}
    writing: dict[int, list[_State]] = {}
    for state in states:
        state.rescore()
        for group in state.columns:
            reading.setdefault(group, []).append(state)
        for group in np.unique(state.rows).tolist():
            writing.setdefault(group, []).append(state)
    costs = np.zeros(len(free))
    for group, its in reading.items():
        costs[group] = sum(state.costs[group] for state in its)
    units = _Units(free, balances, layers, floor)
    order: list[Removal] = []
    while not stop(gone):
        unit = units.cheapest(costs, savings(gone), gone)
        if unit is None:
            break
        order.append(Removal(unit, float(costs[list(unit)].sum())))
        touched: dict[int, _State] = {}
        for group in unit:
            gone[group] = True
            for state in reading.get(group, ()):
                state.remove_inputs(group)
                touched[id(state)] = state
            for state in writing.get(group, ()):
                state.remove_outputs(group)
                touched[id(state)] = state
        stale: set[int] = set()
        for state in touched.values():
            state.rescore()
            stale.update(state.costs)
        for group in stale:
            costs[group] = sum(state.costs[group] for state in reading[group] if group in state.costs)
    return order


class _Units:
    """Which groups may leave together."""

    def __init__(
        self, free: BoolArray, balances: tuple[Balance, ...], layers: tuple[IntArray, ...], floor: float
    ) -> None:
        self.free, self.balances, self.layers = free, balances, layers
        self.least = [max(1, int(np.ceil(floor * len(groups)))) for groups in layers]
        self.in_layers: dict[int, list[int]] = {}
        for number, groups in enumerate(layers):
            for group in np.unique(groups).tolist():
                self.in_layers.setdefault(group, []).append(number)
        self.governed = np.zeros(len(free), bool)
        for balance in balances:
            for section in balance.sections:
                self.governed[section] = True

    def cheapest(self, costs: FloatArray, savings: FloatArray, gone: BoolArray) -> tuple[int, ...] | None:
        open_ = self._open(gone)
        best: tuple[int, ...] | None = None
        least = np.inf
        alone = np.flatnonzero(open_ & ~self.governed)
        if len(alone):
            ratio = costs[alone] / savings[alone].clip(min=1e-9)
            best, least = (int(alone[ratio.argmin()]),), float(ratio.min())
        for balance in self.balances:
            unit = self._balanced(balance, costs, open_)
            if unit is not None:
                index = list(unit)
                ratio = float(costs[index].sum() / max(savings[index].sum(), 1e-9))
                if ratio < least:
                    best, least = unit, ratio
        return best

    def _open(self, gone: BoolArray) -> BoolArray:
        """Free groups none of whose layers is at its floor."""
        open_ = self.free & ~gone
        for groups, least in zip(self.layers, self.least, strict=True):
            if int((~gone[groups]).sum()) <= least:
                open_[groups] = False
        return open_

    def _balanced(self, balance: Balance, costs: FloatArray, open_: BoolArray) -> tuple[int, ...] | None:
        """The cheapest open group of each section, where each lies in one section of one balance only."""
        unit = []
        for section in balance.sections:
            candidates = section[open_[section]]
            if not len(candidates):
                return None
            unit.append(int(candidates[costs[candidates].argmin()]))
        return tuple(unit) if len(set(unit)) == len(unit) else None
