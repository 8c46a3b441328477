"""seqprune as a pruner among others."""

from __future__ import annotations

from typing import Any

from torch import nn

from seqprune.budget.cost import parameters
from seqprune.graph import trace
from seqprune.plan import PrunePlan
from seqprune.run import prune
from seqprune.surgery import compact
from seqprune.testing.plain import is_ultralytics
from seqprune.testing.trial import Inputs, Keep


def exact(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Channels by name: traced, planned, compacted."""
    graph = trace(module, inputs)
    return compact(module, PrunePlan.from_keep(graph, keep), graph)


def fast(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """The preset that looks at weights alone, to the share of the parameters that ``keep`` would leave."""
    share = parameters(exact(module, inputs, keep)) / parameters(module)
    found = prune(
        module,
        preset="fast",
        target=f"params={share:.3f}",
        round_to=1,
        imgsz=inputs[0].shape[-1] if is_ultralytics(module) else None,
        example_inputs=inputs,
        val=False,
        progress=False,
    )
    small: Any = found.model
    small.seqprune_keep = found.plan.keep
    return small  # type: ignore[no-any-return]
