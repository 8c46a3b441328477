"""Which channel groups may leave together, and which of them next."""

from __future__ import annotations

import numpy as np

from seqprune.graph.channels import Balance, BoolArray, IntArray
from seqprune.select.moments import FloatArray


class Units:
    """Groups that leave in one step: one alone, or of balanced sections one of each.

    Args:
        free: ``[group_count]``, groups that may be removed.
        gone: ``[group_count]``, groups that are removed already.
        balances: sections of which equally many must stay.
        layers: for every layer the groups of its channels.
        floor: least share of a layer's channels that stays; at least one does.
    """

    def __init__(
        self,
        free: BoolArray,
        gone: BoolArray,
        balances: tuple[Balance, ...],
        layers: tuple[IntArray, ...],
        floor: float,
    ) -> None:
        self.balances, self.layers = balances, layers
        self.open = free & ~gone
        self.alone = np.ones(len(free), bool)
        for balance in balances:
            for section in balance.sections:
                self.alone[section] = False
        self.left = [int((~gone[groups]).sum()) for groups in layers]
        self.least = [max(1, int(np.ceil(floor * len(groups)))) for groups in layers]
        self.layers_of: dict[int, list[int]] = {}
        for number, groups in enumerate(layers):
            for group in groups.tolist():
                self.layers_of.setdefault(group, []).append(number)
            self._close(number)

    def _close(self, layer: int) -> None:
        """Where a layer is at its floor none of its groups may leave any more."""
        if self.left[layer] <= self.least[layer]:
            self.open[self.layers[layer]] = False

    def remove(self, unit: tuple[int, ...]) -> None:
        for group in unit:
            self.open[group] = False
            for layer in self.layers_of.get(group, ()):
                self.left[layer] -= 1
        for layer in {layer for group in unit for layer in self.layers_of.get(group, ())}:
            self._close(layer)

    def cheapest(self, costs: FloatArray, savings: FloatArray) -> tuple[int, ...] | None:
        """The unit that costs least for what it saves; ``None`` where none may leave."""
        best: tuple[int, ...] | None = None
        least = np.inf
        alone = np.flatnonzero(self.open & self.alone)
        if len(alone):
            ratio = costs[alone] / savings[alone].clip(min=1e-9)
            best, least = (int(alone[ratio.argmin()]),), float(ratio.min())
        for balance in self.balances:
            unit = self._balanced(balance, costs)
            if unit is not None:
                index = list(unit)
                ratio = float(costs[index].sum() / max(savings[index].sum(), 1e-9))
                if ratio < least:
                    best, least = unit, ratio
        return best

    def _balanced(self, balance: Balance, costs: FloatArray) -> tuple[int, ...] | None:
        """The cheapest open group of each section, where each lies in one section of one balance only."""
        unit = []
        for section in balance.sections:
            candidates = section[self.open[section]]
            if not len(candidates):
                return None
            unit.append(int(candidates[costs[candidates].argmin()]))
        return tuple(unit) if len(set(unit)) == len(unit) else None
