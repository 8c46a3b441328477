"""Channels given back until constraints hold, with the counts of every section kept up meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

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
        counted: those whose counts matter, sections that balance together one behind the other: those of balances, and
            whole layers that no balance governs.
        balanced: where in ``counted`` each of these begins.
        layers: those that are layers.
        turns: of each of ``counted``, its turn, after that of any before it with a group in common that it does not
            balance with.
        apart: of each turn, whether its sections have no group in common.
    """

    groups: IntArray
    ends: IntArray
    sections: IntArray
    starts: IntArray
    twice: tuple[bool, ...]
    counted: IntArray
    balanced: IntArray
    layers: IntArray
    turns: IntArray
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
        layers = np.arange(len(parts), len(parts) + len(whole))
        parts += whole
        counted += [(at,) for at in layers.tolist() if not governed[parts[at]].all()]
        ends = np.cumsum([0, *(len(part) for part in parts)])
        groups = np.concatenate([np.empty(0, np.intp), *parts])
        places = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[places], np.arange(group_count + 1))
        section_of = np.repeat(np.arange(len(parts)), np.diff(ends))[places]
        twice = tuple(_repeating(section_of, groups[places], len(parts)).tolist())
        counts = np.array([len(each) for each in counted], np.intp)
        together = np.full(len(parts), len(counted))
        together[flat := np.array([*chain.from_iterable(counted)], np.intp)] = np.repeat(
            np.arange(len(counted)), counts
        )
        repeating = _repeating(together[section_of], groups[places], len(counted) + 1)[:-1]
        turns = _turns([np.concatenate([parts[at] for at in each]) for each in counted], group_count)
        apart = ~np.isin(np.arange(len(counted)), turns[repeating])
        balanced, turns = counts.cumsum() - counts, np.repeat(turns, counts)
        return cls(groups, ends, section_of, starts, twice, flat, balanced, layers, turns, tuple(apart.tolist()))

    def holding(self, groups: IntArray) -> IntArray:
        """The sections that groups lie in, once for every place that they have there."""
        return self.sections[_runs(self.starts[groups], self.starts[groups + 1])]

    def counts(self, of: BoolArray) -> IntArray:
        """How many groups of each section are among ``of``, ``[group_count]``."""
        so_far = np.concatenate([[0], of[self.groups].cumsum()])
        counts: IntArray = np.diff(so_far[self.ends])
        return counts

    @cached_property
    def section_of_places(self) -> IntArray:
        """``[places]``, the section of each in ``groups``."""
        return np.repeat(np.arange(len(self.ends) - 1), np.diff(self.ends))


def _runs(starts: IntArray, ends: IntArray) -> IntArray:
    """All numbers from each start to its end."""
    counts = ends - starts
    before = np.repeat(counts.cumsum() - counts, counts)
    found: IntArray = np.repeat(starts, counts) + np.arange(len(before)) - before
    return found


def _repeating(of: IntArray, groups: IntArray, count: int) -> BoolArray:
    """``[count]``, which of these have a group more than once: ``of`` says whose each of ``groups`` is."""
    pairs = np.sort(of + groups * count)
    found = np.zeros(count, bool)
    found[pairs[1:][pairs[1:] == pairs[:-1]] % count] = True
    return found


def _turns(counted: Sequence[IntArray], group_count: int) -> IntArray:
    """Of each the first turn after all of those before it that it has a group in common with."""
    next_turn = np.zeros(group_count, np.intp)
    turns = np.zeros(len(counted), np.intp)
    for at, groups in enumerate(counted):
        turns[at] = next_turn[groups].max()
        next_turn[groups] = turns[at] + 1
    return turns


class Giving:
    """Groups given back until constraints hold; for any number of choices among the same groups, sorted once.

    Args:
        sections: what channels are counted in.
        scores: ``[group_count]``, higher stays first.
        decided: ``[group_count]``, groups that may be given back.

    Attributes:
        removed: ``[group_count]``, what is removed now.
        kept: how many of every section stay.
        given: how many groups were given back.
    """

    def __init__(self, sections: Sections, scores: npt.NDArray[np.float64], decided: BoolArray) -> None:
        self.sections, self.scores, self.decided = sections, scores, decided
        self.may_change = sections.counts(decided)[sections.counted] > 0
        self.begin(np.zeros(len(scores), bool))

    def begin(self, removed: BoolArray) -> None:
        """From here on these are removed."""
        self.removed: BoolArray = removed.copy()
        self.given = 0
        self.kept = self.sections.counts(~removed)

    @cached_property
    def best(self) -> IntArray:
        """The groups of all sections, in each the best at the front, of equal ones the first."""
        ranks = np.empty(len(self.scores), np.intp)
        ranks[np.argsort(-self.scores, kind="stable")] = np.arange(len(ranks))
        groups, section_of = self.sections.groups, self.sections.section_of_places
        best: IntArray = groups[np.argsort(section_of * len(ranks) + ranks[groups])]
        return best

    def legal(self, removed: BoolArray, round_to: int = 1) -> BoolArray:
        """As :meth:`seqprune.graph.channels.ChannelGraph.legalise`."""
        self.begin(removed)
        while True:
            before = self.given
            self.even_out(round_to)
            self.fill_empty()  # sections may lie across layers, and be even without one of them
            if self.given == before:
                return self.removed

    def even_out(self, round_to: int) -> None:
        """The best removed groups of all sections that count, turn by turn, until as many stay of those that balance
        together, a multiple of ``round_to`` where there are enough.
        """
        sections, turn = self.sections.counted, -1
        sizes = np.diff(self.sections.balanced, append=len(sections))
        while True:
            most = np.maximum.reduceat(self.kept[sections], self.sections.balanced)
            targets = np.repeat(np.maximum(1, -(-most // round_to) * round_to), sizes)
            short = (self.kept[sections] < targets) & self.may_change & (self.sections.turns > turn)
            if not short.any():
                return
            turn = int(self.sections.turns[short].min())
            now = np.flatnonzero(short & (self.sections.turns == turn))
            if self.sections.apart[turn] and len(now) > 1:
                self.side_by_side(sections[now], targets[now])
                continue
            for each, target in zip(sections[now].tolist(), targets[now].tolist(), strict=True):
                self.back(each, target)

    def fill_empty(self) -> None:
        """The best group of every layer of which nothing would stay."""
        layers = self.sections.layers
        for each in layers[self.kept[layers] < 1].tolist():
            self.back(each, 1)

    def back(self, section: int, target: int) -> None:
        """The best removed groups of a section, until ``target`` of its channels, or all, stay."""
        start, end = self.sections.ends[section], self.sections.ends[section + 1]
        wanted = target - int(self.kept[section])
        if wanted <= 0:
            return
        groups = self.best[start:end]
        groups = groups[self.removed[groups] & self.decided[groups]]
        if self.sections.twice[section]:  # a group that is in the section twice is given back once
            _, first, times = np.unique(groups, return_index=True, return_counts=True)
            order = first.argsort()
            groups, times = groups[first[order]], times[order]
            wanted = int(np.searchsorted(times.cumsum(), wanted)) + 1
        self._give(groups[:wanted])

    def side_by_side(self, sections: IntArray, targets: IntArray) -> None:
        """:meth:`back` of sections that have no group in common: a convolution in groups has one for each of these."""
        starts, ends = self.sections.ends[sections], self.sections.ends[sections + 1]
        groups, of = self.best[_runs(starts, ends)], np.repeat(np.arange(len(sections)), ends - starts)
        may = self.removed[groups] & self.decided[groups]
        groups, of = groups[may], of[may]
        place = np.arange(len(of)) - np.searchsorted(of, of)
        self._give(groups[place < (targets - self.kept[sections])[of]])

    def _give(self, groups: IntArray) -> None:
        self.removed[groups] = False
        self.given += len(groups)
        self.kept += np.bincount(self.sections.holding(groups), minlength=len(self.kept))
