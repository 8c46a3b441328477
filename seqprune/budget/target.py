"""What a run is asked to leave of a network: parameters, operations or time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from seqprune.budget.cost import gflops, latencies_ms
from seqprune.budget.price import Price, operations
from seqprune.errors import InputError
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.observe.inputs import Inputs
from seqprune.plan import PrunePlan
from seqprune.surgery import compact

KINDS = ("params", "flops", "latency")


@dataclass(frozen=True)
class Target:
    """``params=0.8``: which measure, and the share of it that stays, in (0, 1)."""

    kind: str
    share: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """
        Raises:
            InputError: the text says anything else.
        """
        kind, _, share = text.partition("=")
        try:
            found = cls(kind.strip(), float(share))
        except ValueError:
            found = cls(kind, -1.0)
        if found.kind not in KINDS or not 0 < found.share < 1:
            raise InputError(f"target {text!r} is not understood: write params=0.8, flops=0.6 or latency=0.7")
        return found


def price_of(target: Target, model: nn.Module, graph: ChannelGraph, inputs: Inputs) -> Price:
    """What a channel is charged where the network is given ``inputs``: time is paid for in operations.

    Products without a weight, as those of attention, are charged to no channel and thought to stay, though some leave.
    """
    if target.kind == "params":
        return Price(model, graph)
    return Price(model, graph, operations(model, inputs), in_all=_multiplied(model, inputs))


def measured_share(
    target: Target, price: Price, model: nn.Module, graph: ChannelGraph, inputs: Inputs
) -> Callable[[BoolArray], float] | None:
    """What share of its operations or its time a removal leaves, when it is done; ``None`` where the price says it.

    ``price`` is that of :func:`price_of`; time is that of the device that the model is on.
    """
    if target.kind == "params":
        return None

    def share(removed: BoolArray) -> float:
        small = compact(model, PrunePlan.from_removed(graph, removed), graph)
        if target.kind == "flops":
            return _multiplied(small, inputs) / price.whole
        before, after = latencies_ms([model, small], [inputs, inputs], next(model.parameters()).device)
        return after / before

    return share


def _multiplied(model: nn.Module, inputs: Inputs) -> float:
    """Multiplications in one forward pass; :func:`seqprune.budget.cost.gflops` counts an addition with each."""
    return 1e9 * gflops(model, inputs) / 2
