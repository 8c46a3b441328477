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
from seqprune.yolo.profile import latencies_ms

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
    """What a channel is charged: time is paid for in operations."""
    if target.kind == "params":
        return Price(model, graph)
    parameter = next(model.parameters())
    example = torch.zeros(1, 3, imgsz, imgsz, dtype=parameter.dtype, device=parameter.device)
    return Price(model, graph, operations(model, example))


def measured_share(
    target: Target, model: nn.Module, graph: ChannelGraph, imgsz: int, device: torch.device
) -> Callable[[BoolArray], float] | None:
    """For a target in time, what share a removal leaves when it is timed; ``None`` where the price says it."""
    if target.kind != "latency":
        return None

    def share(removed: BoolArray) -> float:
        small = compact(model, PrunePlan.from_removed(graph, removed), graph)
        whole, part = latencies_ms([model, small], imgsz, device)
        return part / whole

    return share
