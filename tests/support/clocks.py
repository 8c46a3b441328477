"""Times that are counted, not taken: what a choice by time is tested with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from torch import nn

from seqprune.budget.cost import gflops
from seqprune.engine.stopwatch import Stopwatch
from seqprune.runtimes.layers import Chain
from seqprune.runtimes.turns import Spread

OVERHEAD = 0.2
"""Of the operations of the whole unpruned network, that whatever is left of it takes beside its own."""

OF_EIGHT_BITS = 0.5
"""Of the time, that a network in them takes."""


def multiplications(chain: Chain) -> float:
    """As many as a layer takes, by its shapes."""
    height, width, found = chain.height, chain.width, 0
    for each in chain.convolutions:
        height = (height + 2 * each.padding[0] - each.kernel[0]) // each.stride[0] + 1
        width = (width + 2 * each.padding[1] - each.kernel[1]) // each.stride[1] + 1
        found += height * width * each.outputs * each.inputs * each.kernel[0] * each.kernel[1] // each.groups
    return float(found)


def count_time(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network takes a millisecond for a million of multiplications and, however small, ``OVERHEAD`` of the largest.

    Returns:
        What was asked for, as it comes: ``networks`` and ``layers``.
    """
    asked: list[str] = []
    largest = [0.0]

    def networks(watch: Stopwatch, given: Sequence[tuple[Any, nn.Module]]) -> list[Spread]:
        def measure() -> list[float]:
            asked.append("networks")
            found = [500 * gflops(model, task.example(model)) for task, model in given]
            largest[0] = max(largest[0], *found)
            shares = [1 if task.bits == 32 else OF_EIGHT_BITS for task, _ in given]
            return [share * (each + OVERHEAD * largest[0]) for each, share in zip(found, shares, strict=True)]

        def about(task: Any, model: nn.Module) -> str:
            return f"{sum(p.numel() for p in model.parameters())}@{task.example(model).shape[-1]}x{task.bits}"

        name = "-".join(about(task, model) for task, model in given)
        return [Spread(ms, ms, ms, 1) for ms in watch.state.plain(f"time-networks-{name}", measure)]

    def layers(watch: Stopwatch, chains: tuple[Chain, ...]) -> list[float]:
        asked.append("layers")
        return [1e-6 * multiplications(chain) for chain in chains]

    monkeypatch.setattr(Stopwatch, "networks", networks)
    monkeypatch.setattr(Stopwatch, "layers", layers)
    return asked
