"""What one run is about: a network, its graph and its task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.engine.front import AtSize
from seqprune.engine.presets import Way
from seqprune.engine.record import Measurements, Size
from seqprune.engine.stopwatch import Stopwatch
from seqprune.engine.task import Task
from seqprune.errors import ModelError
from seqprune.graph import ChannelGraph
from seqprune.observe.inputs import finite

EightBits = Callable[[nn.Module, Any, Stopwatch, Path], dict[str, Any]]
"""Given a network, its task, what measures and a folder for the file, what :attr:`Record.int8` holds."""


@dataclass(frozen=True)
class Subject:
    """What is pruned; made of weights that are numbers, else a :class:`ModelError` says which are none.

    Attributes:
        model: the unpruned network, on the CPU, in inference mode; changed nowhere.
        graph: its channel graph.
        task: what is asked of it.
        kind: what holds its measurements.
        source, data: what they are called in reports; ``data`` is empty where there are no images.
        left: where smaller images or eight bits bring the network nearer to its target, the task with them, the size
            of the images if it was chosen, and the way with what is left of its target to the other moves.
        eight_bits: brings a network to eight bits and measures it; ``None`` where nobody can.
        at_size: the task at a size; ``None`` where images have none that could be changed.
    """

    model: nn.Module
    graph: ChannelGraph
    task: Task
    kind: type[Size] = Measurements
    source: str = ""
    data: str = ""
    left: tuple[Task, int | None, Way] | None = None
    at_size: AtSize | None = None
    eight_bits: EightBits | None = None

    def __post_init__(self) -> None:
        for name, parameter in self.model.named_parameters():
            if not finite(parameter):
                raise ModelError(f"{name} holds NaN or infinite numbers: give weights of a training that went well")
