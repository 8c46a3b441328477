"""What the contract asks of a network: it is traced, pruned at random, and both ways of pruning agree in both modes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from networks import random_plan, randomise
from torch import nn
from torch.utils._pytree import tree_leaves

from seqprune import compact, trace
from seqprune.graph import ChannelGraph, outputs
from seqprune.surgery import masker

SHARES = (0.25, 0.5, 0.75)
PLACE = re.compile(r" (?:in|of) (?:the network|[a-z_0-9]+(?:\.\w+)+|\w+\d+)(?=[:, ]|$)")  # module paths in a reason


@dataclass(frozen=True)
class Measured:
    """What was seen of one network.

    Attributes:
        seconds: how long the trace took.
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
    start = time.perf_counter()
    graph = trace(model, inputs)
    seconds = time.perf_counter() - start
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


def prepare(model: nn.Module) -> None:
    """Weights and statistics under which a wrong channel shows, and no randomness in the forward pass.

    Dropout and stochastic depth draw by shape, so a smaller network would draw other numbers. Parameters that start as
    one number, above all the 1e-6 of ConvNeXt's residual branches, would hide what they are multiplied with.
    """
    randomise(model, 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.eq(parameter.flatten()[0]).all():
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...], training: bool) -> list[torch.Tensor]:
    """The floating-point outputs, on a batch of two in training mode, as BatchNorm needs it."""
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if training:
        inputs = tuple(torch.cat([t, t.flip(-1)]) for t in inputs)
    torch.manual_seed(0)
    with torch.no_grad():
        out = model.train(training)(*inputs)
        for name, buffer in model.named_buffers():
            if buffer.shape == statistics[name].shape:
                buffer.copy_(statistics[name])
    model.eval()
    return [t for t in tree_leaves(outputs.read(model, out)) if isinstance(t, torch.Tensor) and t.is_floating_point()]


def difference(reference: list[torch.Tensor], result: list[torch.Tensor]) -> float:
    """Greatest difference relative to the largest value of each output; infinite where shapes or NaNs differ."""
    if [t.shape for t in reference] != [t.shape for t in result]:
        return float("inf")
    worst = 0.0
    for a, b in zip(reference, result, strict=True):
        if not torch.equal(a, b):
            worst = max(worst, float((a - b).abs().max() / a.abs().max()))
            if worst != worst:
                return float("inf")
    return worst


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
