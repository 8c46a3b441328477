"""Networks that are pruned at random and compared with what they were, masked."""

from __future__ import annotations

from typing import Any

from torch import nn

from seqprune import compact, mask, trace, verify
from seqprune.graph import ChannelGraph
from seqprune.testing.networks import random_plan


def exact_on(inputs: Any, model: nn.Module, plans: int = 3) -> ChannelGraph:
    """The graph of a network that is the same, masked and compact, with each of so many random plans."""
    graph = trace(model, inputs)
    for seed in range(plans):
        plan = random_plan(graph, seed)
        verify(mask(model, plan, graph), compact(model, plan, graph), inputs)
    return graph
