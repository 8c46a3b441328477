"""What layers cost in milliseconds where they will run: a few variants of each are timed, lines lie between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from seqprune.graph.factor import First
from seqprune.observe.inputs import Inputs
from seqprune.runtimes.layers import Chain, Place, Timing, places_of

STEP = 16
"""Processors fill so many lanes: 17 channels take the time of 32."""
SHARES = (0.25, 0.5, 0.75)
"""Of the rank at which a pair costs what its layer does; there it is timed."""


@dataclass(frozen=True)
class Line:
    """Milliseconds of a layer: ``base`` and ``each`` for every unit of what it is counted in, neither below 0."""

    base: float
    each: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """The nearest to some measured ones."""
        x, y = (np.asarray(values, float) for values in zip(*points, strict=True))
        spread = float(((x - x.mean()) ** 2).sum())
        each = max(0.0, float(((x - x.mean()) * y).sum()) / spread) if spread else 0.0
        base = float(y.mean()) - each * float(x.mean())
        if base >= 0:
            return cls(base, each)
        return cls(0.0, float((x * y).sum() / (x * x).sum()))


@dataclass(frozen=True)
class Times:
    """
    Attributes:
        whole: milliseconds of one pass of the network.
        layers: by module path, those of a layer over the multiplications that are left of it, a share of all of them.
        pairs: by module path and which kernel comes first, those of a pair over the channels between.
        alone: by module path, those of the layer as it is.
    """

    whole: float
    layers: Mapping[str, Line]
    pairs: Mapping[tuple[str, First], Line]
    alone: Mapping[str, float]


def times_of(model: nn.Module, inputs: Inputs, timing: Timing, pairs: Sequence[str] = ()) -> Times:
    """Layer by layer; layers of one shape are timed once.

    A layer alone takes longer than in the network, where its output is still at hand: what all of them take in sum is
    never more than what the network does.

    Args:
        model: the network.
        inputs: what it is given.
        timing: measures.
        pairs: convolutions that may be made of two.
    """
    places = places_of(model, inputs)
    layers: dict[str, Line] = {}
    alone: dict[str, float] = {}
    made: dict[tuple[str, First], Line] = {}
    for path, place in places.items():
        widths = _widths(place)
        ms = timing.layers(tuple(widths))
        layers[path] = Line.through(list(zip(widths.values(), ms, strict=True)))
        alone[path] = ms[0] * place.uses
        if path in pairs:
            ranks = _pairs(place)
            found = timing.layers(tuple(ranks))
            for first in ("column", "row"):
                points = [(key[1], t) for key, t in zip(ranks.values(), found, strict=True) if key[0] == first]
                made[path, first] = Line.through(points)
    whole = timing.milliseconds(model)
    shrink = min(1.0, whole / (sum(alone.values()) or whole))
    return Times(
        whole,
        {path: _scaled(line, places[path].uses * shrink) for path, line in layers.items()},
        {key: _scaled(line, places[key[0]].uses * shrink) for key, line in made.items()},
        {path: ms * shrink for path, ms in alone.items()},
    )


def uses_in_ms(model: nn.Module, times: Times) -> dict[str, float]:
    """By module path, what an element of its weight costs, for :class:`seqprune.budget.price.Price`."""
    found = {}
    for path, line in times.layers.items():
        weight = model.get_submodule(path).weight
        found[path] = line.each / weight.numel()  # type: ignore[operator]
    return found


def _scaled(line: Line, by: float) -> Line:
    return Line(line.base * by, line.each * by)


def _widths(place: Place) -> dict[Chain, float]:
    """The layer, then narrower ones, with the share of its multiplications."""
    conv = place.convolution
    found = {place.chain(): 1.0}
    if 1 < conv.groups < conv.inputs:
        return found  # widths of groups that are no single channels are bound to each other
    for inputs, outputs in ((conv.inputs, _half(conv.outputs)), (_half(conv.inputs), conv.outputs)):
        narrow = conv.narrowed(inputs, outputs)
        share = narrow.inputs * narrow.outputs * conv.groups / (conv.inputs * conv.outputs * narrow.groups)
        found.setdefault(place.chain(narrow), share)
    return found


def _half(width: int) -> int:
    half = width // 2
    return max(1, half - half % STEP if half >= STEP else half)


def _pairs(place: Place) -> dict[Chain, tuple[First, int]]:
    """Pairs of either order, with their ranks."""
    conv, found = place.convolution, {}
    (height, width), (down, along) = conv.kernel, conv.stride
    for first in ("column", "row"):
        one, two, before = (height, width, along) if first == "column" else (width, height, down)
        even = conv.inputs * conv.outputs * height * width / (before * one * conv.inputs + two * conv.outputs)
        for least, share in enumerate(SHARES, 1):  # three ranks, however few channels there are: one makes no line
            rank = STEP * max(least, round(share * even / STEP))
            found[place.chain(*conv.factored(first == "column", rank))] = (first, rank)
    return found  # type: ignore[return-value]
