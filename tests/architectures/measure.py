"""What the contract asks of a network: it is traced, pruned at random, and both ways of pruning agree in both modes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from seqprune import compact, trace
from seqprune.graph import ChannelGraph
from seqprune.surgery import masker
from seqprune.testing.networks import random_plan
from seqprune.testing.outputs import difference, prepare, run

SHARES = (0.25, 0.5, 0.75)
PLACE = re.compile(r" (?:in|of) (?:the network|[a-z_0-9]+(?:\.\w+)+|\w+\d+)(?=[:, ]|$)")  # module paths in a reason


@dataclass(frozen=True)
class Measured:
    """What was seen of one network.

    Attributes:
        seconds: of the processor that the trace took, however busy the machine.
        layers: convolutions and linear layers that ran.
        channels: share of their output channels that may be removed.
        parameters: share of all parameters that lie in a row or column which may be removed.
        removed: by share asked for, how many layers lost channels.
        difference: greatest relative difference of masked and compact outputs, over shares and modes.
        effect: least relative difference of masked and unpruned outputs, without which the other would prove nothing.
        pinned: by reason, the share of all output channels that must stay for it, the largest first.
        notes: what the trace could not look at.
    """

    seconds: float
    layers: int
    channels: float
    parameters: float
    removed: tuple[int, ...]
    difference: float
    effect: float
    pinned: dict[str, float]
    notes: tuple[str, ...]

    @property
    def pruned(self) -> bool:
        return min(self.removed) > 0 and self.effect > 1e-3


def measure(model: nn.Module, inputs: tuple[torch.Tensor, ...], shares: Iterable[float] = SHARES) -> Measured:
    """Traces ``model``, then prunes it again and again; weights are overwritten."""
    prepare(model)
    start = time.thread_time()
    graph = trace(model, inputs)
    seconds = time.thread_time() - start
    removed, worst, effect = [], 0.0, float("inf")
    unpruned = run(model, inputs, training=False)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for seed, share in enumerate(shares):
        plan = random_plan(graph, seed, share)
        removed.append(len(plan.layers))
        masker(plan, graph)(model)  # in place: the largest networks fit into memory only twice
        small = compact(model, plan, graph)
        for training in (False, True):
            masked = run(model, inputs, training)
            worst = max(worst, difference(masked, run(small, inputs, training)))
            effect = effect if training else min(effect, difference(unpruned, masked))
        for name, tensor in model.state_dict().items():
            tensor.copy_(whole[name])
    return Measured(
        seconds,
        len(graph.all_layers),
        *prunable(model, graph),
        tuple(removed),
        worst,
        effect,
        pinned(graph),
        graph.notes,
    )


def prunable(model: nn.Module, graph: ChannelGraph) -> tuple[float, float]:
    """Share of channels that may be removed, and of parameters that would go with them."""
    channels = sum(layer.channels for layer in graph.all_layers)
    free = sum(int(layer.free.sum()) for layer in graph.all_layers)
    stay: dict[int, float] = {}
    sizes = {id(p): p.numel() for p in model.parameters()}
    for cut in graph.slices:
        tensor = getattr(model.get_submodule(cut.module), cut.tensor)
        if id(tensor) in sizes:
            stay[id(tensor)] = stay.get(id(tensor), 1.0) * float(graph.pinned[cut.groups].mean())
    # What stays of a weight is the product of what stays of its rows and columns.
    kept = sum(size * stay.get(key, 1.0) for key, size in sizes.items())
    return free / max(channels, 1), 1 - kept / max(sum(sizes.values()), 1)


def pinned(graph: ChannelGraph) -> dict[str, float]:
    """By reason, without the places: what share of all channels it pins."""
    counts: dict[str, int] = {}
    for layer in graph.all_layers:
        if not layer.free.all():
            reason = PLACE.sub("", layer.reason.split("; ")[0])
            counts[reason] = counts.get(reason, 0) + int((~layer.free).sum())
    channels = sum(layer.channels for layer in graph.all_layers)
    return {reason: counts[reason] / channels for reason in sorted(counts, key=counts.__getitem__, reverse=True)}
