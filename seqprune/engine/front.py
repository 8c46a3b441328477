"""What the trivial way gives: the unpruned network on smaller images, beside the pruned one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from seqprune.budget.cost import gflops
from seqprune.budget.size import STEP
from seqprune.engine.listener import Listener
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.task import Task
from seqprune.runtimes.turns import Spread

AtSize = Callable[[int], Task]
"""The task with images of another size: its example and its accuracy."""
NEAREST = 2


@dataclass(frozen=True)
class Point:
    """One way to have a network that costs less.

    Attributes:
        what: ``unpruned`` or ``pruned``.
        bits: 32, or 8 where a runtime's tool brought it there; its accuracy is that of the exported file then.
        in_floats: of eight bits the first accuracy of the same export in floats: both are measured on squares.
        imgsz: side of the images in pixels.
        gflops: of one image.
        share_of_operations, share_of_time: of the unpruned network at the size that was given.
        ms: of one image.
        accuracy: by name.
    """

    what: str
    imgsz: int
    gflops: float
    share_of_operations: float
    share_of_time: float
    ms: Spread
    accuracy: Mapping[str, float]
    bits: int = 32
    in_floats: float | None = None

    def in_eight_bits(self, found: Mapping[str, Any]) -> Point:
        """The same network in them; ``found`` is what :attr:`seqprune.engine.record.Record.int8` holds of it."""
        floats, small = found["float"]["ms"]["median"], Spread(**found["int8"]["ms"])
        share = self.share_of_time * small.median / floats
        accuracy = found["int8"]["accuracy"]
        whole = found["float"]["accuracy"].get(next(iter(accuracy)))
        return replace(self, share_of_time=share, ms=small, accuracy=accuracy, bits=8, in_floats=whole)


def sizes_for(imgsz: int, cost: Callable[[int], float], left: float, every: bool, step: int = STEP) -> list[int]:
    """Sizes below ``imgsz``, the largest first, down to the first that costs no more than ``left`` of it.

    Args:
        imgsz: side in pixels.
        cost: of the network at a size.
        left: share of the cost.
        every: all of them; else the ``NEAREST`` to ``left``.
        step: sizes are multiples of it.
    """
    found, whole = [], cost(imgsz)
    for size in range((imgsz - 1) // step * step, step - 1, -step):
        found.append(size)
        if cost(size) <= left * whole:
            break
    return found if every else found[-NEAREST:]


def front_of(
    model: nn.Module,
    pruned: nn.Module,
    at: AtSize,
    watch: Stopwatch,
    *,
    imgsz: int,
    size: int,
    accuracies: Sequence[Mapping[str, float]],
    timed: bool,
    every: bool,
    told: Listener,
    eight_bits: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> tuple[dict[str, object], ...]:
    """Points as JSON holds them: the unpruned network, the same on smaller images, the pruned one.

    Args:
        model, pruned: both, on the CPU.
        at: the task at a size.
        watch: measures.
        imgsz: side of the images of the unpruned network.
        size: of the pruned one.
        accuracies: of the unpruned and of the pruned network.
        timed: whether smaller images are taken down to the time of the pruned one, or to its operations.
        every: see :func:`sizes_for`.
        told: what is going on.
        eight_bits: what was measured of both networks in them; empty where nothing was.
    """

    def operations(network: nn.Module, side: int) -> float:
        return gflops(network, at(side).example(network))

    def time(network: nn.Module, side: int) -> float:
        before, after = watch.networks([(at(imgsz), model), (at(side), network)])
        return after.median / before.median

    whole, cost = operations(model, imgsz), time if timed else operations
    left = time(pruned, size) if timed else operations(pruned, size) / whole
    of_unpruned, of_pruned = eight_bits
    if timed and of_pruned:
        left *= of_pruned["int8"]["ms"]["median"] / of_pruned["float"]["ms"]["median"]
    smaller = sizes_for(imgsz, partial(cost, model), left, every)
    known = [accuracies[0], *(_accuracy(model, at(side), side, accuracies[0], told) for side in smaller)]
    ways = [("unpruned", model, side) for side in (imgsz, *smaller)] + [("pruned", pruned, size)]
    spreads = watch.networks([(at(side), network) for _, network, side in ways])
    points = []
    for (what, network, side), ms, accuracy in zip(ways, spreads, (*known, accuracies[1]), strict=True):
        counted = operations(network, side)
        points.append(Point(what, side, counted, counted / whole, ms.median / spreads[0].median, ms, accuracy))
    if of_unpruned:
        points.insert(-1, points[0].in_eight_bits(of_unpruned))
    if of_pruned:
        points.append(points[-1].in_eight_bits(of_pruned))
    plain = tuple(asdict(point) for point in points)
    if better := beaten(plain, "share_of_time" if timed else "share_of_operations"):
        told.warning(better)
    return plain


def _accuracy(model: nn.Module, task: Task, size: int, names: Iterable[str], told: Listener) -> dict[str, float]:
    told.stage(f"measure unpruned at {size} pixels", None)
    found = task.accuracy(model)
    return {name: found[name] for name in names if name in found}


def beaten(points: Sequence[Mapping[str, Any]], cost: str) -> str:
    """Why smaller images would have been better, of :func:`front_of`'s points; empty where they would not."""
    pruned, name = points[-1], next(iter(points[-1]["accuracy"]), "")
    for point in points[1:-1]:
        score, small = point["accuracy"].get(name), point["bits"] == 8
        if (small and cost != "share_of_time") or point["what"] == "pruned":
            continue
        if score is not None and point[cost] <= pruned[cost] and score > pruned["accuracy"][name]:
            what = cost.removeprefix("share_of_")
            how = "in eight bits" if small else f"on images of {point['imgsz']} pixels"
            advice = (
                "let them count (--int8), or take them alone"
                if small
                else "let smaller images be a move (--by channels,factors,size, without --imgsz), or take those images "
                "alone"
            )
            return (
                f"the unpruned network {how} is better: {point[cost]:.0%} of the {what} and {name} {score:.4f}, the "
                f"pruned one {pruned[cost]:.0%} and {pruned['accuracy'][name]:.4f}; {advice}"
            )
    return ""
