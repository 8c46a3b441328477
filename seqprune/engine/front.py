"""What the trivial ways give: the unpruned network on smaller images and in eight bits, beside the pruned one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
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
        share, small = self.share_of_time * ratio_of(found), Spread(**found["int8"]["ms"])
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


@dataclass(frozen=True)
class Front:
    """Measures the pruned network beside the trivial ways.

    Attributes:
        model, pruned: both networks, on the CPU.
        at: the task at a size.
        watch: measures.
        imgsz, size: side of the images in pixels, of the unpruned and of the pruned network.
        timed: whether smaller images are taken down to the time of the pruned one, or to its operations.
        every: see :func:`sizes_for`.
        told: what is going on.
        in_eight_bits: what was measured of the pruned network in them; empty where nothing was.
        quantise: measures the unpruned network in them at a size; empty where nothing can be.
    """

    model: nn.Module
    pruned: nn.Module
    at: AtSize
    watch: Stopwatch
    imgsz: int
    size: int
    timed: bool
    every: bool
    told: Listener
    in_eight_bits: Mapping[str, Any] = field(default_factory=dict)
    quantise: Callable[[int], Mapping[str, Any]] = lambda _size: {}

    def points(self, accuracies: Sequence[Mapping[str, float]]) -> tuple[dict[str, object], ...]:
        """As JSON holds them: the unpruned network, the same on smaller images and in eight bits, the pruned one.

        Args:
            accuracies: of the unpruned and of the pruned network.
        """
        left = self.cost(self.pruned, self.size) * (ratio_of(self.in_eight_bits) if self.timed else 1)
        sides = [self.imgsz, *sizes_for(self.imgsz, partial(self.cost, self.model), left, self.every)]
        known = [accuracies[0], *(self._accuracy(side, accuracies[0]) for side in sides[1:])]
        ways = [(self.model, side) for side in sides] + [(self.pruned, self.size)]
        spreads = self.watch.networks([(self.at(side), network) for network, side in ways])
        shares = [spread.median / spreads[0].median for spread in spreads]
        whole = [self._point(*each) for each in zip(sides, shares, spreads, known, strict=False)]
        pruned = self._point(self.size, shares[-1], spreads[-1], accuracies[1], self.pruned)
        found = [*whole, *(self._small(whole[0], pruned) if self.timed else ()), pruned]
        if self.in_eight_bits:
            found.append(pruned.in_eight_bits(self.in_eight_bits))
        plain = tuple(asdict(point) for point in found)
        if better := beaten(plain, "share_of_time" if self.timed else "share_of_operations"):
            self.told.warning(better)
        return plain

    def cost(self, network: nn.Module, side: int) -> float:
        """Share of the unpruned network's time or operations."""
        if not self.timed:
            return self._operations(network, side) / self._whole
        self.told.stage(f"time at {side} pixels", None)
        before, after = self.watch.networks([(self.at(self.imgsz), self.model), (self.at(side), network)])
        return after.median / before.median

    def _small(self, whole: Point, pruned: Point) -> Iterator[Point]:
        """The unpruned network in eight bits and, where the pruned one is in them too, on smaller images as well."""
        found = self.quantise(self.imgsz)
        if not found:
            return
        small = whole.in_eight_bits(found)
        yield small
        left = pruned.share_of_time * ratio_of(self.in_eight_bits) / small.share_of_time
        if not self.in_eight_bits or left >= 1:
            return
        for side in sizes_for(self.imgsz, partial(self.cost, self.model), left, every=False):
            if found := self.quantise(side):
                yield self._point(side, self.cost(self.model, side), whole.ms, {}).in_eight_bits(found)

    def _point(
        self, side: int, share: float, ms: Spread, accuracy: Mapping[str, float], network: nn.Module | None = None
    ) -> Point:
        counted = self._operations(network or self.model, side)
        what = "unpruned" if network is None else "pruned"
        return Point(what, side, counted, counted / self._whole, share, ms, accuracy)

    @cached_property
    def _whole(self) -> float:
        """Operations of the unpruned network."""
        return self._operations(self.model, self.imgsz)

    def _operations(self, network: nn.Module, side: int) -> float:
        return gflops(network, self.at(side).example(network))

    def _accuracy(self, side: int, names: Iterable[str]) -> dict[str, float]:
        self.told.stage(f"measure unpruned at {side} pixels", None)
        found = self.at(side).accuracy(self.model)
        return {name: found[name] for name in names if name in found}


def ratio_of(small: Mapping[str, Any]) -> float:
    """Of the time in eight bits to that in floats; 1 where nothing was measured in them."""
    return float(small["int8"]["ms"]["median"] / small["float"]["ms"]["median"]) if small else 1.0


def beaten(points: Sequence[Mapping[str, Any]], cost: str) -> str:
    """Why smaller images would have been better, of :meth:`Front.points`; empty where they would not."""
    pruned, name = points[-1], next(iter(points[-1]["accuracy"]), "")
    for point in points[1:-1]:
        score, small = point["accuracy"].get(name), point["bits"] == 8
        if (small and cost != "share_of_time") or point["what"] == "pruned":
            continue
        if score is not None and point[cost] <= pruned[cost] and score > pruned["accuracy"][name]:
            what = cost.removeprefix("share_of_")
            ways = ["in eight bits"] * small
            ways += [f"on images of {point['imgsz']} pixels"] * (point["imgsz"] != points[0]["imgsz"])
            how, instead = " ".join(ways), _instead(small, points[0], pruned)
            return (
                f"the unpruned network {how} is better: {point[cost]:.0%} of the {what} and {name} {score:.4f}, the "
                f"pruned one {pruned[cost]:.0%} and {pruned['accuracy'][name]:.4f}; {instead}"
            )
    return ""


def _instead(small: bool, whole: Mapping[str, Any], pruned: Mapping[str, Any]) -> str:
    if small:
        return (
            "take it as it is, without training it on"
            if pruned["bits"] == 8
            else "let them count (--int8), or take them alone"
        )
    if pruned["imgsz"] != whole["imgsz"]:
        return "take those images alone; more --images say better which size is best"
    return "let smaller images be a move (--by channels,factors,size, without --imgsz), or take those images alone"
