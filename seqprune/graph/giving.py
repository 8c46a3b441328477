"""Channels given back until constraints hold, with the counts of every section kept up meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sections:
    """Everything that channels are counted in, end to end: a choice asks for the counts at every step.

    Attributes:
        groups: of all sections.
        ends: ``[sections + 1]``, where each begins and the last one ends.
        of_group: by group, the sections it lies in, once for every place that it has there.
        counted: those whose counts matter, sections that balance together: those of balances, and whole layers that no
            balance governs.
        layers: those that are layers.
    """

    groups: IntArray
    ends: IntArray
    of_group: tuple[tuple[int, ...], ...]
    counted: tuple[tuple[int, ...], ...]
    layers: tuple[int, ...]

    @classmethod
    def of(cls, balances: Sequence[Sequence[IntArray]], whole: Sequence[IntArray], group_count: int) -> Sections:
        """Of balances' sections, and of layers' groups."""
        parts: list[IntArray] = []
        counted: list[tuple[int, ...]] = []
        governed = np.zeros(group_count, bool)
        for sections in balances:
            counted.append(tuple(range(len(parts), len(parts) + len(sections))))
            parts += sections
            for section in sections:
                governed[section] = True
        layers = tuple(range(len(parts), len(parts) + len(whole)))
        parts += whole
        counted += [(at,) for at in layers if not governed[parts[at]].all()]
        of_group: list[list[int]] = [[] for _ in range(group_count)]
        for at, part in enumerate(parts):
            for group in part.tolist():
                of_group[group].append(at)
        ends = np.cumsum([0, *(len(part) for part in parts)])
        groups = np.concatenate([np.empty(0, np.intp), *parts])
        return cls(groups, ends, tuple(map(tuple, of_group)), tuple(counted), layers)


class Giving:
    """Groups given back one by one, and how many of every section stay."""

    def __init__(
        self, sections: Sections, removed: BoolArray, scores: npt.NDArray[np.float64], decided: BoolArray
    ) -> None:
        self.sections, self.removed, self.scores, self.decided = sections, removed, scores, decided
        self.given = 0
        self.kept = self._counts(~removed)
        self.may_change = self._counts(decided)

    def _counts(self, of: BoolArray) -> list[int]:
        """How many of each section."""
        so_far = np.concatenate([[0], of[self.sections.groups].cumsum()])
        counts: list[int] = np.diff(so_far[self.sections.ends]).tolist()
        return counts

    def back(self, section: int, target: int) -> None:
        """The best removed groups of a section, until ``target`` of its channels, or all, stay."""
        start, end = self.sections.ends[section], self.sections.ends[section + 1]
        target = min(target, int(end - start))
        if self.kept[section] >= target:
            return  # as nearly always: sorting first took most of the time that planning takes
        groups = self.sections.groups[start:end]
        candidates = np.unique(groups[self.removed[groups] & self.decided[groups]])
        for group in candidates[np.argsort(-self.scores[candidates], kind="stable")].tolist():
            self.removed[group] = False
            self.given += 1
            for each in self.sections.of_group[group]:
                self.kept[each] += 1
            if self.kept[section] >= target:
                return
