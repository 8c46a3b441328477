"""What can be pruned of a network, and what stands in the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from seqprune.engine.listener import Listener
from seqprune.engine.options import Opening
from seqprune.engine.settings import Choose, Look, Open, Train
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.leaving import removable
from seqprune.report.console import graph_json, graph_text
from seqprune.sources.opening import check_there, is_ultralytics, opened

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class Inspection:
    """Layers front to back, what is coupled or constrained, and what is pinned and why; printed, a table.

    Attributes:
        source: what the network is called.
        graph: where its channels go.
        blocks: those that may be left out whole.
    """

    source: str
    graph: ChannelGraph
    blocks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return graph_text(self.graph, self.source, self.blocks).plain

    def to_json(self) -> str:
        return json.dumps(graph_json(self.graph, self.source, self.blocks), indent=2)


def inspect(model: str | Path | nn.Module | Any, data: Any = None, **how: Unpack[Opening]) -> Inspection:
    """Looks where the channels of a network go.

    Args:
        model, data: as :func:`seqprune.prune` takes them; of a module the first two inputs are run, of one of
            Ultralytics' networks a grey image.
        how: see :class:`seqprune.engine.settings.Open`; ``example_inputs`` stand for the data of a module.

    Raises:
        InputError: weights or inputs that cannot be used.
    """
    check_there(model)
    asked = Open(**how)
    if not is_ultralytics(model):
        told, cpu = Listener(), torch.device("cpu")
        subject, _ = opened(model, data, Look(2, val=False), Choose("fast"), Train(), asked, device=cpu, told=told)
        inputs = subject.task.example(subject.model)
        blocks = removable(subject.model, inputs if isinstance(inputs, tuple) else (inputs,))
        return Inspection(subject.source, subject.graph, blocks)
    from seqprune.yolo.files.load import load
    from seqprune.yolo.files.networks import NETWORKS, example
    from seqprune.yolo.task.tracing import trace_detector

    network = load(model, tasks=NETWORKS, trust=asked.trust)
    blocks = removable(network.model, (example(network.model),))
    return Inspection(network.source, trace_detector(network.model), blocks)
