"""From an order of channel groups to those that are removed under a budget. Pure: numbers in, a mask of groups out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from seqprune.budget.price import FloatArray, Price
from seqprune.budget.surgeon import RIDGE
from seqprune.errors import InputError, TargetError
from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray

Spread = Literal["uniform", "global", "absolute"]
Meet = Callable[[Callable[[float], BoolArray]], BoolArray]
"""Given what a price removes for a share, what is removed."""
TOLERANCE = 0.02
"""Where rounding leaves more than the target, so large a share of it is let pass."""


@dataclass(frozen=True)
class Budget:
    """How far to go, and what to spare.

    Attributes:
        target: share of the price of the whole network that stays, in (0, 1].
        floor: least share of every layer's channels that stays; at least one does.
        protect: module paths in which every layer stays whole.
        round_to: channel counts are rounded up to a multiple of this where enough are left.
        ridge: relative to the mean variance of a convolution's input, where second moments choose.
        of: what the whole network here is of the one that was asked about, where something left it before.
    """

    target: float
    floor: float = 0.1
    protect: tuple[str, ...] = ()
    round_to: int = 8
    ridge: float = RIDGE
    of: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1 or not 0 <= self.floor <= 1 or self.round_to < 1:
            raise InputError(
                f"target={self.target:g}, floor={self.floor:g}, round_to={self.round_to}: the target is a share in "
                "(0, 1], the floor one in [0, 1], and counts are rounded to 1 or more"
            )


def prefix_for(
    graph: ChannelGraph,
    share: Callable[[BoolArray], float],
    order: Sequence[Sequence[int]] | IntArray,
    free: BoolArray,
    budget: Budget,
) -> BoolArray:
    """The shortest beginning of an order that meets the target once counts are rounded, found by bisection.

    Args:
        graph: where channels go.
        share: what of the whole stays.
        order: groups that leave together, those that leave first at the front; ``[steps]`` where each leaves alone.
        free: ``[group_count]``, groups that may be given back.
        budget: how far to go.

    Returns:
        ``[group_count]``, what is removed: legal.

    Raises:
        TargetError: not even all of the order meets it.
    """
    # What leaves late is given back first.
    scores: FloatArray = np.full(graph.group_count, float(len(order)))
    if isinstance(order, np.ndarray):
        scores[order] = np.arange(len(order))
    else:
        ranks = np.repeat(np.arange(len(order)), np.array([len(groups) for groups in order], np.intp))
        scores[np.fromiter(chain.from_iterable(order), np.intp, len(ranks))] = ranks

    giving = graph.giving(scores, free)

    def removed(count: int) -> BoolArray:
        return giving.legal(scores < count, budget.round_to)

    low, high, found = 0, len(order), None
    while low < high:
        middle = (low + high) // 2
        tried = removed(middle)
        if share(tried) <= budget.target:
            high, found = middle, tried
        else:
            low = middle + 1
    if found is None:
        found = removed(low)
    # A shorter beginning met it already, and is not asked again: time would tell something else every time.
    left = 0.0 if low < len(order) else share(found)
    if left > budget.target * (1 + TOLERANCE):
        raise _unmet(graph, budget, left)
    return found


def _unmet(graph: ChannelGraph, budget: Budget, left: float) -> TargetError:
    """Why a target is not met where all that may leave leaves ``left``."""
    said = f"a target of {budget.target * budget.of:g} cannot be met"
    if not graph.layers:
        first = graph.all_layers[0]
        return TargetError(
            f"{said}: no channel of any layer can leave, those of {first.name} since {first.reason}; change the "
            "network where `seqprune inspect` shows why, or allow other moves (--by)"
        )
    return TargetError(
        f"{said}, {left * budget.of:.3f} stays at the least, with it {budget.floor:g} of every layer: take a greater "
        "target (--target), protect less (--protect), or round counts up by less (--round-to 1)"
    )


def prefix_met(
    graph: ChannelGraph,
    share: Callable[[BoolArray], float],
    order: Sequence[Sequence[int]] | IntArray,
    free: BoolArray,
    budget: Budget,
    meet: Meet | None = None,
) -> BoolArray:
    """:func:`prefix_for`, or, where another measure is to meet the target, what ``meet`` finds among those."""

    def at(target: float) -> BoolArray:
        return prefix_for(graph, share, order, free, replace(budget, target=target))

    return at(budget.target) if meet is None else meet(at)


def by_scores(
    graph: ChannelGraph,
    price: Price,
    scores: FloatArray,
    target: float,
    *,
    spread: Spread = "uniform",
    floor: float = 0.1,
    protect: Sequence[str] = (),
    round_to: int = 1,
    share: Callable[[BoolArray], float] | None = None,
    meet: Meet | None = None,
) -> BoolArray:
    """Removes the groups with the lowest scores until what stays costs no more than ``target`` of the whole network.

    Groups are compared within a pool: those that the same layers make and the same constraints govern. ``uniform``
    keeps the same ratio of every pool, ``global`` those above one threshold over scores divided by their pool's mean,
    ``absolute`` those above one over the scores as they are. Counts are rounded up, so that a small pool stays
    whole for longer.

    Args:
        graph: where channels go.
        price: what is counted: parameters, or operations.
        scores: ``[group_count]``, higher stays, finite.
        target, floor, protect, round_to: see :class:`Budget`.
        spread: how the removal is spread over layers.
        share: what of the whole stays, where something else is meant to meet the target than the price.
        meet: finds what meets the target among what is removed for a share; by the price alone where left out.

    Returns:
        ``[group_count]``, what is removed: legal, and as near below the target as steps of the constraints are small.

    Raises:
        InputError: a number out of range, an unknown path, or scores of another shape or not finite.
        TargetError: the target cannot be reached.
    """
    budget = Budget(target, floor, tuple(protect), round_to)
    if scores.shape != (graph.group_count,) or not np.isfinite(scores).all():
        raise InputError(
            f"scores of shape {scores.shape} for {graph.group_count} channel groups, or not finite: give one finite "
            "number for each group"
        )
    free = ~graph.pinned & ~protected(graph, protect)
    order = _within_floor(graph, order_of(graph, scores, free, spread), floor)
    return prefix_met(graph, share or price.share, order, free, budget, meet)


def order_of(graph: ChannelGraph, scores: FloatArray, free: BoolArray, spread: Spread = "uniform") -> IntArray:
    """The ``free`` groups, those that leave first at the front; ties in the order of the groups.

    ``uniform`` goes by the share of its pool that scores lower, ``global`` by the score over the pool's mean,
    ``absolute`` by the score.
    """
    candidates = np.flatnonzero(free)
    if spread == "absolute":
        return candidates[np.argsort(scores[candidates], kind="stable")]
    key: FloatArray = np.zeros(graph.group_count)
    for pool in pools(graph, free):
        if spread == "uniform":
            ranks = np.argsort(np.argsort(scores[pool], kind="stable"))
            key[pool] = (ranks + 1) / len(pool)
        else:
            mean = scores[pool].mean()
            key[pool] = scores[pool] / mean if mean > 0 else 0.0
    return candidates[np.argsort(key[candidates], kind="stable")]


def pools(graph: ChannelGraph, free: BoolArray) -> list[IntArray]:
    """``free`` groups that can be compared: made by the same layers, and in the same sections of the same balances.

    Both halves of a C2f are pools of their own, so that a ratio takes as many of each.
    """
    makers = [layer.groups for layer in graph.all_layers]
    arrays = (*makers, *(section for balance in graph.balances for section in balance.sections))
    where = np.repeat(np.arange(len(arrays)), [len(each) for each in arrays])
    pairs, times = np.unique(np.concatenate(arrays) * len(arrays) + where, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(graph.group_count + 1) * len(arrays)).tolist()
    about, width = np.stack([pairs % len(arrays), times], 1).tobytes(), 2 * pairs.itemsize
    found: dict[bytes, list[int]] = {}
    for group in np.flatnonzero(free).tolist():
        # Groups of one pool are in the same of them, equally often.
        found.setdefault(about[width * starts[group] : width * starts[group + 1]], []).append(group)
    return [np.array(pool) for pool in found.values()]


def _within_floor(graph: ChannelGraph, order: IntArray, floor: float) -> IntArray:
    """The order without the groups whose removal would take a layer below its floor."""
    groups = np.concatenate([layer.groups for layer in graph.all_layers])
    layers = np.repeat(np.arange(len(graph.all_layers)), [layer.channels for layer in graph.all_layers])
    places = np.argsort(groups)
    starts = np.searchsorted(groups[places], np.arange(graph.group_count + 1))
    makers = layers[places].tolist()
    spare = [layer.channels - max(1, int(np.ceil(floor * layer.channels))) for layer in graph.all_layers]
    stays = []
    for start, end in zip(starts[order].tolist(), starts[order + 1].tolist(), strict=True):
        mine, fits = makers[start:end], True
        for layer in mine:
            spare[layer] -= 1
            fits = fits and spare[layer] >= 0
        stays.append(fits)
        if not fits:
            for layer in mine:
                spare[layer] += 1
    within: IntArray = order[np.array(stays, bool)]
    return within


def protected(graph: ChannelGraph, paths: Sequence[str]) -> BoolArray:
    """``[group_count]``, the groups of all layers in some module paths.

    Raises:
        InputError: a path without a layer.
    """
    found = np.zeros(graph.group_count, bool)
    for path in paths:
        inside = [layer for layer in graph.all_layers if f"{layer.name}.".startswith(f"{path.rstrip('.')}.")]
        if not inside:
            raise InputError(f"there is no layer in {path!r} to protect: `seqprune inspect` lists the layers")
        for layer in inside:
            found[layer.groups] = True
    return found
