"""From scores to removed channel groups under a budget. Pure: numbers in, a mask of groups out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from seqprune.errors import InputError
from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray
from seqprune.price import FloatArray, Price

Spread = Literal["uniform", "global"]
TOLERANCE = 0.02
"""A target is met when what stays is within this share of it."""


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
) -> BoolArray:
    """Removes the groups with the lowest scores until what stays costs ``target`` of the whole network.

    Groups are compared within a pool: those that the same layers make and the same constraints govern. ``uniform``
    keeps the same ratio of every pool, ``global`` those above one threshold over scores divided by their pool's mean.
    Either way groups get an order, and how many of it are removed is found by bisection. Counts are rounded up, so that
    a small pool stays whole for longer.

    Args:
        graph: where channels go.
        price: what is counted: parameters, or operations.
        scores: ``[group_count]``, higher stays, finite.
        target: share of the price of the whole network that stays, in (0, 1].
        spread: how the removal is spread over layers.
        floor: least share of every layer's channels that stays; at least one does.
        protect: module paths; the layers in them keep all channels.
        round_to: channel counts are rounded up to a multiple of this where enough are left.

    Returns:
        ``[group_count]``, what is removed: legal, and within 2 % of the target where steps of the network's constraints
        are that small; otherwise the nearest below it.

    Raises:
        InputError: a number out of range, an unknown path, scores of another shape or not finite, or a target that
            cannot be reached.
    """
    _check(graph, scores, target, spread, floor, round_to)
    free = ~graph.pinned & ~_protected(graph, protect)
    order = _within_floor(graph, removal_order(graph, scores, free, spread), floor)

    def first(count: int) -> BoolArray:
        removed = np.zeros(graph.group_count, bool)
        removed[order[:count]] = True
        return graph.legalise(removed, scores, free, round_to)

    low, high = 0, len(order)  # so many leave too much, and so many do not
    below = first(high)
    if price.share(below) > target * (1 + TOLERANCE):
        raise InputError(
            f"a target of {target:g} is out of reach: with the floor of {floor:g}, what is pinned and protected, and "
            f"the rounding, no less than {price.share(below):.3f} of the whole stays; ask for more, or lower the floor"
        )
    above = first(low)
    while high - low > 1:
        middle = (low + high) // 2
        if price.share(tried := first(middle)) > target:
            low, above = middle, tried
        else:
            high, below = middle, tried
    over, under = price.share(above) - target, target - price.share(below)
    return above if over <= TOLERANCE * target and over < abs(under) else below


def removal_order(graph: ChannelGraph, scores: FloatArray, free: BoolArray, spread: Spread = "uniform") -> IntArray:
    """The ``free`` groups, those that leave first at the front; ties in the order of the groups.

    ``uniform`` goes by the share of its pool that scores lower, ``global`` by the score over the pool's mean.
    """
    key: FloatArray = np.zeros(graph.group_count)
    for pool in pools(graph, free):
        if spread == "uniform":
            ranks = np.argsort(np.argsort(scores[pool], kind="stable"), kind="stable")
            key[pool] = (ranks + 1) / len(pool)
        else:
            mean = scores[pool].mean()
            key[pool] = scores[pool] / mean if mean > 0 else 0.0
    candidates = np.flatnonzero(free)
    return candidates[np.argsort(key[candidates], kind="stable")]


def pools(graph: ChannelGraph, free: BoolArray) -> list[IntArray]:
    """``free`` groups that can be compared: made by the same layers, and in the same sections of the same balances.

    Both halves of a C2f are pools of their own, so that a ratio takes as many of each.
    """
    sections: list[list[int]] = [[] for _ in range(graph.group_count)]
    for number, section in enumerate(s for balance in graph.balances for s in balance.sections):
        for group in section.tolist():
            sections[group].append(number)
    found: dict[object, list[int]] = {}
    for group in np.flatnonzero(free).tolist():
        makers = tuple(name for name, _ in graph.members[group])
        found.setdefault((makers, tuple(sections[group])), []).append(group)
    return [np.array(groups, np.intp) for groups in found.values()]


def _within_floor(graph: ChannelGraph, order: IntArray, floor: float) -> IntArray:
    """The order without the groups whose removal would take a layer below its floor."""
    left = {layer.name: layer.channels for layer in graph.all_layers}
    least = {name: max(1, int(np.ceil(floor * channels))) for name, channels in left.items()}
    kept = []
    for group in order.tolist():
        makers = [name for name, _ in graph.members[group]]
        if all(left[name] - makers.count(name) >= least[name] for name in makers):
            kept.append(group)
            for name in makers:
                left[name] -= 1
    return np.array(kept, np.intp)


def _protected(graph: ChannelGraph, protect: Sequence[str]) -> BoolArray:
    """``[group_count]``, groups of the layers under the paths ``protect``."""
    found = np.zeros(graph.group_count, bool)
    for path in protect:
        layers = [layer for layer in graph.all_layers if f"{layer.name}.".startswith(f"{path.rstrip('.')}.")]
        if not layers:
            raise InputError(
                f"no layer lies in {path!r}, which was to be protected: `seqprune inspect` lists the layers"
            )
        for layer in layers:
            found[layer.groups] = True
    return found


def _check(graph: ChannelGraph, scores: FloatArray, target: float, spread: str, floor: float, round_to: int) -> None:
    if not 0 < target <= 1 or not 0 <= floor <= 1 or round_to < 1 or spread not in ("uniform", "global"):
        raise InputError(
            f"target={target:g}, floor={floor:g}, round_to={round_to}, spread={spread}: target is in (0, 1], floor in "
            "[0, 1], round_to at least 1, spread uniform or global"
        )
    if scores.shape != (graph.group_count,) or not np.isfinite(scores).all():
        raise InputError(
            f"scores of shape {scores.shape} for {graph.group_count} channel groups, or not finite: give one finite "
            "number for each group"
        )
