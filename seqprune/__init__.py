"""Front-to-back channel pruning of trained detectors."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqprune.engine.listener import Listener
    from seqprune.engine.modules import restore
    from seqprune.engine.steps import StepReport
    from seqprune.graph import ChannelGraph, trace
    from seqprune.graph.active import count_active_channels
    from seqprune.measure.compare import compare
    from seqprune.measure.inspecting import inspect
    from seqprune.measure.sensitivity import sensitivity
    from seqprune.plan import PrunePlan
    from seqprune.report.result import PruneResult
    from seqprune.run import prune
    from seqprune.surgery import compact, keep_masked, mask, verify

# The first use of a name imports what it needs: torch takes seconds, and `seqprune --help` needs none of it.
_HOME = {
    "ChannelGraph": "graph",
    "Listener": "engine.listener",
    "PrunePlan": "plan",
    "PruneResult": "report.result",
    "StepReport": "engine.steps",
    "compact": "surgery",
    "compare": "measure.compare",
    "count_active_channels": "graph.active",
    "inspect": "measure.inspecting",
    "mask": "surgery",
    "prune": "run",
    "keep_masked": "surgery",
    "restore": "engine.modules",
    "sensitivity": "measure.sensitivity",
    "trace": "graph",
    "verify": "surgery",
}

__all__ = [
    "ChannelGraph",
    "Listener",
    "PrunePlan",
    "PruneResult",
    "StepReport",
    "compact",
    "compare",
    "count_active_channels",
    "inspect",
    "keep_masked",
    "mask",
    "prune",
    "restore",
    "sensitivity",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("seqprune")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
