"""The properties are tested too: pruners with the predecessor's faults must fail what ours passes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.testing import PRUNERS, results
from seqprune.testing.faulty import half_applied
from seqprune.testing.networks import Network, example
from seqprune.testing.strategies import networks
from seqprune.testing.trial import Inputs, Keep, Prune, trial


def no_coupling(net: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Zeroes the weights of each layer but forgets bias and BatchNorm."""
    for name, stay in keep.items():
        weight = net.get_submodule(name).weight
        gone = sorted({*range(len(weight))} - {*stay})
        with torch.no_grad():
            weight[gone] = 0
    return net


def holds(prune: Prune, net: Network, seed: int) -> bool:
    """The first law: what a pruner returns runs, and computes what the masked network computes."""
    found = results(trial(net, prune, (example(),), seed=seed), ["values"])
    return all(result.state != "fails" for result in found if result.contract in ("returns", "runs", "values"))


FAULTY = {
    "half applied": half_applied,
    "back to front": PRUNERS["back-to-front"].prune,
    "no coupling": no_coupling,
}


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
    assert holds(PRUNERS["seqprune"].prune, net, seed)


def test_half_applied_pruning_raises_the_original_error() -> None:
    """``expected input … to have k channels, but got n channels instead``, the predecessor's crash."""
    net = Network()
    net.add("module", (0,), (4,), nn.Conv2d(3, 4, 1))
    net.add("module", (1,), (4,), nn.Conv2d(4, 4, 1))
    net.finish()
    net = net.double().eval()
    graph = trace(net, example())
    plan = PrunePlan.from_keep(graph, {"blocks.0": [0, 2]})
    verify(mask(net, plan, graph), compact(net, plan, graph), example())
    with pytest.raises(RuntimeError, match=r"to have 2 channels, but got 4 channels instead"):
        half_applied(net, (example(),), plan.keep)(example())
