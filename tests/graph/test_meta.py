"""The properties are tested too: pruners with the predecessor's faults must fail what ours passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import VerificationError
from seqprune.graph import ChannelGraph
from seqprune.testing.networks import Network, example, random_plan
from seqprune.testing.strategies import networks

Pruner = Callable[[Network, PrunePlan, ChannelGraph], nn.Module]


def consumers(graph: ChannelGraph, name: str) -> list[str]:
    """Layers whose input is exactly the output of ``name``, as the predecessor found its next layer."""
    groups = graph.by_name[name].groups.tolist()
    return [c.module for c in graph.slices if c.tensor == "weight" and c.dim == 1 and c.groups.tolist() == groups]


def half_applied(net: Network, plan: PrunePlan, graph: ChannelGraph) -> nn.Module:
    """Narrows the inputs of the next layers and leaves the producer at its full width."""
    pruned = deepcopy(net)
    for layer in plan.layers:
        _narrow_inputs(pruned, consumers(graph, layer.name), layer.keep)
    return pruned


def back_to_front(net: Network, plan: PrunePlan, graph: ChannelGraph) -> nn.Module:
    """Takes producers' rows away from the back, guessing the next layer's inputs from their number alone."""
    pruned = deepcopy(net)
    for layer in reversed(plan.layers):
        module = pruned.get_submodule(layer.name)
        width = module.weight.shape[0]
        module.weight = nn.Parameter(module.weight[list(layer.keep)])
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias[list(layer.keep)])
        module.out_channels = len(layer.keep)
        readers = [n for n, m in pruned.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == width]
        _narrow_inputs(pruned, readers[:1], layer.keep)
    return pruned


def no_coupling(net: Network, plan: PrunePlan, graph: ChannelGraph) -> nn.Module:
    """Zeroes the weights of each layer but forgets bias and BatchNorm."""
    pruned = deepcopy(net)
    for layer in plan.layers:
        gone = sorted(set(range(layer.channels)) - set(layer.keep))
        with torch.no_grad():
            pruned.get_submodule(layer.name).weight[gone] = 0
    return pruned


def _narrow_inputs(net: nn.Module, names: Sequence[str], keep: Sequence[int]) -> None:
    for name in names:
        module = net.get_submodule(name)
        if module.groups == 1:
            module.weight = nn.Parameter(module.weight[:, list(keep)])
            module.in_channels = len(keep)


def holds(pruner: Pruner, net: Network, seed: int) -> bool:
    """The first law: what a pruner returns runs, and computes what the masked network computes."""
    graph = trace(net, example())
    plan = random_plan(graph, seed)
    try:
        verify(mask(net, plan, graph), pruner(net, plan, graph), example(seed))
    except (RuntimeError, IndexError, VerificationError):
        return False
    return True


FAULTY: Mapping[str, Pruner] = {f.__name__: f for f in (half_applied, back_to_front, no_coupling)}


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_pruner_is_caught(name: str) -> None:
    """Hypothesis must find a network on which the planted fault shows."""
    net, seed = find(
        st.tuples(networks(max_steps=4), st.integers(0, 2**16)),
        lambda case: not holds(FAULTY[name], *case),
        settings=settings(
            max_examples=200,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    assert holds(compact, net, seed)


def test_half_applied_pruning_raises_the_original_error() -> None:
    """``expected input … to have k channels, but got n channels instead``, the predecessor's crash."""
    net = Network()
    net.add("module", (0,), (4,), nn.Conv2d(3, 4, 1))
    net.add("module", (1,), (4,), nn.Conv2d(4, 4, 1))
    net.finish()
    net = net.double().eval()
    graph = trace(net, example())
    plan = PrunePlan.from_keep(graph, {"blocks.0": [0, 2]})
    with pytest.raises(RuntimeError, match=r"to have 2 channels, but got 4 channels instead"):
        half_applied(net, plan, graph)(example())
    verify(mask(net, plan, graph), compact(net, plan, graph), example())
