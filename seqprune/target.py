"""What a run is asked to leave of a detector: parameters, operations or time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from seqprune.errors import InputError
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.plan import PrunePlan
from seqprune.price import Price, operations
from seqprune.surgery import compact
from seqprune.yolo.profile import gflops, latencies_ms

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


def price_of(target: Target, model: nn.Module, graph: ChannelGraph, imgsz: int) -> Price:
    """What a channel is charged: time is paid for in operations.

    Products without a weight, as those of attention, are charged to no channel and thought to stay, though some leave.
    """
    if target.kind == "params":
        return Price(model, graph)
    parameter = next(model.parameters())
    uses = operations(model, torch.zeros(1, 3, imgsz, imgsz, dtype=parameter.dtype, device=parameter.device))
    multiplied = 1e9 * gflops(model, imgsz) / 2
    return Price(model, graph, uses, besides=max(0.0, multiplied - Price(model, graph, uses).whole))


def measured_share(
    target: Target, model: nn.Module, graph: ChannelGraph, imgsz: int, device: torch.device
) -> Callable[[BoolArray], float] | None:
    """What share of its operations or its time a removal leaves, when it is done; ``None`` where the price says it."""
    if target.kind == "params":
        return None
    whole = gflops(model, imgsz)

    def share(removed: BoolArray) -> float:
        small = compact(model, PrunePlan.from_removed(graph, removed), graph)
        if target.kind == "flops":
            return gflops(small, imgsz) / whole
        before, after = latencies_ms([model, small], imgsz, device)
        return after / before

    return share
