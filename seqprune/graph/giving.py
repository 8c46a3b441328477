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
        sections: those of all places in ``groups``, in the order of the groups.
        starts: ``[group_count + 1]``, where each group's begin there.
        twice: whether a section has a group more than once.
        counted: those whose counts matter, sections that balance together: those of balances, and whole layers that no
            balance governs.
        layers: those that are layers.
        apart: of each of ``counted``, whether no group is there more than once.
    """

    groups: IntArray
    ends: IntArray
    sections: IntArray
    starts: IntArray
    twice: tuple[bool, ...]
    counted: tuple[tuple[int, ...], ...]
    layers: tuple[int, ...]
    apart: tuple[bool, ...]

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
        ends = np.cumsum([0, *(len(part) for part in parts)])
        groups = np.concatenate([np.empty(0, np.intp), *parts])
        places = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[places], np.arange(group_count + 1))
        section_of = np.repeat(np.arange(len(parts)), np.diff(ends))[places]
        twice = tuple(_repeating(section_of, groups[places], len(parts)).tolist())
        together = np.full(len(parts), len(counted))
        for at, balanced in enumerate(counted):
            together[list(balanced)] = at
        apart = tuple((~_repeating(together[section_of], groups[places], len(counted) + 1)[:-1]).tolist())
        return cls(groups, ends, section_of, starts, twice, tuple(counted), layers, apart)

    def holding(self, groups: IntArray) -> list[int]:
        """The sections that groups lie in, once for every place that they have there."""
        starts, counts = self.starts[groups], self.starts[groups + 1] - self.starts[groups]
        before = np.repeat(counts.cumsum() - counts, counts)
        found: list[int] = self.sections[np.repeat(starts, counts) + np.arange(len(before)) - before].tolist()
        return found


def _repeating(of: IntArray, groups: IntArray, count: int) -> BoolArray:
    """``[count]``, which of these have a group more than once: ``of`` says whose each of ``groups`` is."""
    pairs = np.sort(of + groups * count)
    found = np.zeros(count, bool)
    found[pairs[1:][pairs[1:] == pairs[:-1]] % count] = True
    return found


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
        groups = groups[self.removed[groups] & self.decided[groups]]
        # A group that is in the section twice is given back once.
        groups, times = (
            np.unique(groups, return_counts=True) if self.sections.twice[section] else (np.sort(groups), None)
        )
        groups = groups[best := np.argsort(-self.scores[groups], kind="stable")]
        wanted = target - self.kept[section]
        if times is not None:
            wanted = int(np.searchsorted(times[best].cumsum(), wanted)) + 1
        self._give(groups[:wanted])

    def side_by_side(self, sections: Sequence[int], target: int) -> None:
        """:meth:`back` of sections one behind the other that have no group in common: a convolution in groups has one
        for each of these.
        """
        first, last = sections[0], sections[-1] + 1
        ends, wanted = self.sections.ends[first : last + 1], target - np.array(self.kept[first:last])
        groups = self.sections.groups[ends[0] : ends[-1]]
        of = np.repeat(np.arange(last - first), np.diff(ends))
        may = self.removed[groups] & self.decided[groups] & (wanted > 0)[of]
        groups, of = groups[may], of[may]
        best = np.lexsort((groups, -self.scores[groups], of))
        groups, of = groups[best], of[best]
        place = np.arange(len(of)) - np.searchsorted(of, of)
        self._give(groups[place < wanted[of]])

    def _give(self, groups: IntArray) -> None:
        self.removed[groups] = False
        self.given += len(groups)
        for each in self.sections.holding(groups):
            self.kept[each] += 1
