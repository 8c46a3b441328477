"""Laws of front-to-back pruning on random networks: whatever is pruned, in whatever order, channels agree."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, count_active_channels, mask, trace, verify
from seqprune.testing.networks import Network, example, random_plan
from seqprune.testing.strategies import networks

seeds = st.integers(0, 2**16)
shares = st.sampled_from([0.2, 0.5, 0.8])
lawful = settings(max_examples=25)


@lawful
@given(networks(), seeds, shares)
def test_compact_equals_mask_and_no_channel_count_ever_disagrees(net: Network, seed: int, share: float) -> None:
    graph = trace(net, example())
    plan = random_plan(graph, seed, share)
    masked, small = mask(net, plan, graph), compact(net, plan, graph)
    assert verify(masked, small, example(seed, 3)).max_rel <= 1e-10


@lawful
@given(networks(), seeds)
def test_training_mode_runs_in_the_pruned_shape(net: Network, seed: int) -> None:
    graph = trace(net, example())
    small = compact(net, random_plan(graph, seed), graph).train()
    sum(out.square().mean() for out in small(example(seed))).backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in small.parameters())


@lawful
@given(networks(), seeds, st.randoms())
def test_the_order_in_which_layers_are_given_never_matters(net: Network, seed: int, shuffle: random.Random) -> None:
    graph = trace(net, example())
    plan = random_plan(graph, seed)
    keep = list(plan.keep.items())
    shuffle.shuffle(keep)
    again = PrunePlan.from_keep(graph, dict(keep))
    assert again == plan
    assert [layer.name for layer in again.layers] == sorted((n for n, _ in keep), key=graph.order.__getitem__)


@lawful
@given(networks(), seeds)
def test_active_channels_are_those_of_the_plan(net: Network, seed: int) -> None:
    graph = trace(net, example())
    plan = random_plan(graph, seed)
    masked, small = mask(net, plan, graph), compact(net, plan, graph)
    for layer in graph.all_layers:
        stay = len(plan.keep.get(layer.name, range(layer.channels)))
        assert count_active_channels(masked.get_submodule(layer.name)) == stay
        assert small.get_submodule(layer.name).weight.shape[0] == stay


@lawful
@given(networks(), seeds)
def test_a_plan_survives_json(net: Network, seed: int) -> None:
    plan = random_plan(trace(net, example()), seed)
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert hash(PrunePlan.from_json(plan.to_json())) == hash(plan)


@lawful
@given(networks(), seeds, seeds)
def test_pruning_twice_is_pruning_once_by_the_intersection(net: Network, first: int, second: int) -> None:
    graph = trace(net, example())
    p, q = random_plan(graph, first, 0.3), random_plan(graph, second, 0.3)
    removed = p.removed_groups(graph) | q.removed_groups(graph)
    assume(graph.unbalanced(removed) is None and all((~removed[e.groups]).any() for e in graph.all_layers))
    both = PrunePlan.from_removed(graph, removed)
    assert p & q == both == q & p
    assert_same_weights(mask(mask(net, p, graph), q, graph), mask(net, both, graph))


@lawful
@given(networks(), seeds)
def test_masking_twice_is_masking_once(net: Network, seed: int) -> None:
    graph = trace(net, example())
    plan = random_plan(graph, seed)
    once = mask(net, plan, graph)
    assert_same_weights(mask(once, plan, graph), once)


@lawful
@given(networks(), seeds)
def test_a_compact_network_can_be_pruned_again(net: Network, seed: int) -> None:
    graph = trace(net, example())
    small = compact(net, random_plan(graph, seed, 0.3), graph)
    again = trace(small, example())
    plan = random_plan(again, seed + 1, 0.3)
    verify(mask(small, plan, again), compact(small, plan, again), example(seed))


@lawful
@given(networks(), seeds)
def test_the_model_given_is_never_changed(net: Network, seed: int) -> None:
    before = {n: t.clone() for n, t in net.state_dict().items()}
    graph = trace(net, example())
    plan = random_plan(graph, seed)
    mask(net, plan, graph), compact(net, plan, graph)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    a, b = left.state_dict(), right.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("round_to", [1, 2, 4, 8])
@settings(max_examples=30)
@given(net=networks(), seed=seeds)
def test_rounding_only_gives_back_and_reaches_the_multiple_where_channels_allow(
    net: Network, seed: int, round_to: int
) -> None:
    graph = trace(net, example())
    rng = np.random.default_rng(seed)
    wanted = (rng.random(graph.group_count) < 0.7) & ~graph.pinned
    legal = graph.legalise(wanted, rng.random(graph.group_count), ~graph.pinned, round_to)
    assert not (legal & ~wanted).any()
    governed = {g for b in graph.balances for s in b.sections for g in s.tolist()}
    for layer in graph.all_layers:
        if not governed & set(layer.groups.tolist()):
            stay = int((~legal[layer.groups]).sum())
            assert stay % round_to == 0 or stay == layer.channels or len(set(layer.groups.tolist())) < layer.channels


def test_a_layer_that_lies_in_two_sections_is_not_emptied() -> None:
    """Three channels of each convolution group: both are even without the layer in the middle."""

    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.middle, self.right = (nn.Conv2d(3, 2, 1) for _ in range(3))
            self.join = nn.Conv2d(6, 6, 1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.join(torch.cat([self.left(x), self.middle(x), self.right(x)], 1))

    net = Across().double().eval()
    graph = trace(net, example())
    removed = np.zeros(graph.group_count, bool)
    removed[graph.by_name["middle"].groups] = True
    legal = graph.legalise(removed, np.arange(graph.group_count, dtype=float), ~graph.pinned)
    plan = PrunePlan.from_removed(graph, legal)
    assert not (legal & ~removed).any()
    assert verify(mask(net, plan, graph), compact(net, plan, graph), example()).max_rel <= 1e-10
