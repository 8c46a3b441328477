"""What a run is asked to leave of a network: parameters, operations or time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from seqprune.budget.cost import gflops
from seqprune.budget.meet import meet
from seqprune.budget.price import Price, operations
from seqprune.budget.spread import Meet
from seqprune.budget.timed import times_of, uses_in_ms
from seqprune.errors import InputError
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.observe.inputs import Inputs
from seqprune.observe.ranks import ALONE, Ranks
from seqprune.plan import PrunePlan
from seqprune.runtimes.layers import Timing
from seqprune.surgery import compact

ROUNDING = 1e-9
KINDS = ("params", "flops", "latency")


@dataclass(frozen=True)
class Target:
    """``params=0.8``: which measure, and the share of it that stays, in (0, 1).

    Attributes:
        kind: of the measure.
        share: what stays of the network at hand.
        of: what that network is of the one that was asked about, where something left it before.
    """

    kind: str
    share: float
    of: float = 1.0

    def of_the_rest(self, share: float) -> Target:
        """The same target, ``share`` of a network that something left of this one."""
        return Target(self.kind, share, of=self.share / share * self.of)

    @classmethod
    def parse(cls, text: str) -> Target:
        """
        Raises:
            InputError: the text says anything else.
        """
        kind, _, share = text.partition("=") if isinstance(text, str) else ("", "", "")
        try:
            number = float(share)
        except ValueError:
            number = math.nan
        found = cls(kind.strip(), number)
        if found.kind not in KINDS or not 0 < found.share < 1:
            raise InputError(f"target {text!r} is not understood: write params=0.8, flops=0.6 or latency=0.7")
        return found


def price_of(
    target: Target,
    model: nn.Module,
    graph: ChannelGraph,
    inputs: Inputs,
    timing: Timing | None = None,
    ranks: Ranks = ALONE,
) -> Price:
    """What a channel is charged where the network is given ``inputs``: time in milliseconds of its layers.

    Products without a weight, as those of attention, are charged to no channel and thought to stay, though some leave.
    Of several processes the first measures, and all have its times.
    """
    if target.kind == "params":
        return Price(model, graph)
    if timing is not None:
        times = ranks.first(partial(times_of, model, inputs, timing))
        return Price(model, graph, uses_in_ms(model, times), in_all=times.whole)
    return Price(model, graph, operations(model, inputs), in_all=_multiplied(model, inputs))


def measured_share(
    target: Target, price: Price, model: nn.Module, graph: ChannelGraph, inputs: Inputs
) -> Callable[[BoolArray], float] | None:
    """What share of its operations a removal leaves, when it is done; ``None`` where the price says it.

    ``price`` is that of :func:`price_of`.
    """
    if target.kind != "flops" or price.beside <= ROUNDING * price.whole:
        return None

    def share(removed: BoolArray) -> float:
        small = compact(model, PrunePlan.from_removed(graph, removed), graph)
        return _multiplied(small, inputs) / price.whole

    return share


def meeting(target: Target, model: nn.Module, graph: ChannelGraph, timing: Timing | None) -> Meet:
    """How a removal that meets the target is found among those that the price says meet some share."""
    if timing is None:
        return lambda at: at(target.share)

    def left(removed: BoolArray) -> float:
        return timing.share(model, compact(model, PrunePlan.from_removed(graph, removed), graph))

    return lambda at: meet(at, left, target.share)


def _multiplied(model: nn.Module, inputs: Inputs) -> float:
    """Multiplications in one forward pass; :func:`seqprune.budget.cost.gflops` counts an addition with each."""
    return 1e9 * gflops(model, inputs) / 2
