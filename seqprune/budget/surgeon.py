"""Second-order greedy removal over the whole network: the channels whose loss is least for what they save.

B. Hassibi, D. Stork, "Second order derivatives for network pruning: optimal brain surgeon", NIPS 1992, on the error of
refitted layers, as E. Frantar, D. Alistarh, "Optimal brain compression", NeurIPS 2022, here for channels.

For every input tensor with second moments ``H`` (plus a ridge) and the stacked weights ``W`` of all convolutions that
read it, removing the columns ``S`` and refitting the others costs ``tr(W_S (H⁻¹_SS)⁻¹ W_Sᵀ)``. The rows come scaled, so
that losses of different layers can be added. A wide layer makes up for what it lost on the few objects that it is
fitted to, and less on others: where it is known how many samples that fit has, losses are those on unseen ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from seqprune.budget.columns import Columns, Source
from seqprune.budget.units import Units
from seqprune.graph.channels import Balance, BoolArray, IntArray
from seqprune.select.moments import FloatArray

RIDGE = 3e-3
"""Of the mean of a covariance's diagonal, in choice and fit alike: what is chosen is what will be fitted."""


@dataclass(frozen=True)
class Removal:
    """One step of the greedy order: the groups that leave together, and the loss that they add one by one, summed.

    Of balanced halves that stand in for each other the loss together is greater. Choosing the second by what it adds to
    the first left YOLOv8n's counts and accuracy as they were at 60 % of the parameters: the ridge keeps pairs apart.
    """

    groups: tuple[int, ...]
    loss: float


def removal_order(
    sources: Iterable[Source],
    free: BoolArray,
    balances: tuple[Balance, ...],
    layers: tuple[IntArray, ...],
    savings: Callable[[BoolArray], FloatArray],
    stop: Callable[[BoolArray], bool],
    *,
    floor: float,
    removed: BoolArray | None = None,
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
        floor: least share of a layer's channels that stays.
        removed: groups that are gone already.
        ridge: added to the diagonal, relative to its mean.
    """
    gone = np.zeros(len(free), bool) if removed is None else removed.copy()
    may = free & ~gone
    costs = _Costs([Columns(each, free, gone, ridge) for each in sources if may[each.groups].any()], len(free))
    units = Units(free, gone, balances, layers, floor)
    order: list[Removal] = []
    while not stop(gone):
        unit = units.cheapest(costs.now, savings(gone))
        if unit is None:
            break
        order.append(Removal(unit, float(costs.now[list(unit)].sum())))
        gone[list(unit)] = True
        units.remove(unit)
        costs.remove(unit)
    return order


class _Costs:
    """What the removal of each group would cost, over everything that reads it.

    Attributes:
        now: ``[group_count]``; of groups that are gone it says nothing.
    """

    def __init__(self, sources: list[Columns], group_count: int) -> None:
        self.sources = sources
        self.each = np.zeros((len(sources), group_count))
        self.reading: dict[int, list[int]] = {}
        self.writing: dict[int, list[int]] = {}
        for at, source in enumerate(sources):
            for group in source.columns:
                self.reading.setdefault(group, []).append(at)
            for group in np.unique(source.rows).tolist():
                self.writing.setdefault(group, []).append(at)
            for groups, costs in source.costs():
                self.each[at, groups] = costs
        self.now: FloatArray = self.each.sum(0)

    def remove(self, unit: tuple[int, ...]) -> None:
        """Groups that leave together."""
        inputs = {group: self.reading.get(group, []) for group in unit}
        for group in unit:
            for at in self.writing.get(group, ()):
                self.sources[at].remove_outputs(group)
            for at in inputs[group]:
                self.sources[at].remove_inputs(group)
        fitted = {at for its in inputs.values() for at in its}
        for at in fitted:
            self.sources[at].rescore()
        stale: list[IntArray] = []
        for at in fitted.union(*(self.writing.get(group, ()) for group in unit)):
            for groups, costs in self.sources[at].costs():
                self.each[at, groups] = costs
                stale.append(groups)
        if stale:
            groups = np.unique(np.concatenate(stale))
            self.now[groups] = self.each[:, groups].sum(0)
