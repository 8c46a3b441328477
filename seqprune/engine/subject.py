"""What a run is about."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from seqprune.engine.presets import Way
from seqprune.engine.record import Measurements, Size
from seqprune.engine.task import Task
from seqprune.graph import ChannelGraph


@dataclass(frozen=True)
class Subject:
    """What is pruned.

    Attributes:
        model: the unpruned network, on the CPU, in inference mode; changed nowhere.
        graph: its channel graph.
        task: what is asked of it.
        kind: what holds its measurements.
        source, data: what they are called in reports; ``data`` is empty where there are no images.
        sized: where the size of the images is one of the moves, the task at the size that was chosen, that size, and
            the way with what is left of its target to the other moves.
    """

    model: nn.Module
    graph: ChannelGraph
    task: Task
    kind: type[Size] = Measurements
    source: str = ""
    data: str = ""
    sized: tuple[Task, int, Way] | None = None
