"""What a sequential run is asked for, and what it reports of every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import torch

from seqprune.errors import InputError
from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.plain import is_count, is_share
from seqprune.plan import PrunePlan
from seqprune.select.layers import block_of

Match = Literal["once", "each", "all"]
Represent = Literal["weight", "medoid", "gamma"]


@dataclass(frozen=True)
class Settings:
    """How channels are selected.

    Attributes:
        keep: ``"knee"``, ``"interpolated-knee"``, or the share of channels in (0, 1].
        represent: what decides inside a cluster: L1 weight norm, the medoid, or the BatchNorm weight.
        match: objects count when the unpruned model finds them (``once``), when the model pruned so far
            does (``each``), or always (``all``).
        round_to: channel counts are rounded up to a multiple of this; 1 leaves them.
        min_samples: classes with fewer objects are left out.
        seed: of every random choice.
    """

    keep: Literal["knee", "interpolated-knee"] | float = "knee"
    represent: Represent = "weight"
    match: Match = "once"
    round_to: int = 1
    min_samples: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.keep, str) or is_share(self.keep) or (isinstance(self.keep, Real) and self.keep == 1)):
            shown = f"{self.keep:g}" if isinstance(self.keep, int | float) else self.keep
            raise InputError(f"a keep ratio of {shown} is outside (0, 1]: give the share of channels that stay")
        if not is_count(self.round_to, 1):
            raise InputError(f"channel counts cannot be rounded to multiples of {self.round_to}: give 1 or more")


@dataclass(frozen=True)
class StepReport:
    """What one step did to one layer.

    Attributes:
        layer: module path.
        block: index of its top-level module, ``None`` where the network has none.
        channels: output channels in the unpruned model.
        active_before: channels of the layer not masked before the step.
        active_after: the same after it.
        objects: objects the moments were taken from.
        classes: class ids that had enough objects.
        k: clusters, summed over what was decided together.
        status: ``pruned`` or ``skipped``.
        reason: why it was skipped, with which layer it was decided, or that it is a pair's first convolution; empty
            otherwise.
        members: the layers decided in this step, front to back.
        seconds: wall time.
        seen: what was clustered, as plain data; see :func:`seqprune.engine.insight.of`. ``None`` where nothing was.
    """

    layer: str
    block: int | None
    channels: int
    active_before: int
    active_after: int
    objects: int = 0
    classes: tuple[int, ...] = ()
    k: int = 0
    status: Literal["pruned", "skipped"] = "pruned"
    reason: str = ""
    members: tuple[str, ...] = ()
    seconds: float = 0.0
    seen: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def removed(self) -> int:
        """How many of the layer's channels the step took."""
        return self.active_before - self.active_after


@dataclass(frozen=True)
class Done:
    """What a run has decided so far.

    Attributes:
        steps: reports, front to back.
        removed: ``[group_count]``.
        decided_by: by channel group, the first layer of those it was decided with.
        matched: per batch, ``[M]`` bool, which objects count; ``None`` where that was not asked yet.
    """

    steps: list[StepReport]
    removed: BoolArray
    decided_by: dict[int, str]
    matched: list[torch.Tensor] | None


def reports(graph: ChannelGraph, plan: PrunePlan) -> tuple[StepReport, ...]:
    """One report for every layer that lost channels, front to back."""
    return tuple(
        StepReport(
            layer=kept.name,
            block=block_of(kept.name),
            channels=kept.channels,
            active_before=kept.channels,
            active_after=len(kept.keep),
            k=len(kept.keep),
            members=(kept.name, *graph.coupled(kept.name)),
        )
        for kept in plan.layers
    )
