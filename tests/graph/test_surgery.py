"""What comes out of surgery: modules that their own constructors would make, and tensors that fit a fresh network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import PlanError
from seqprune.graph import ChannelGraph
from seqprune.plan import LayerKeep
from seqprune.surgery import fill, keep_masked
from seqprune.testing.networks import random_plan, randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Last(nn.Module):
    """A module over tensors that have the channels last."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


class Flat(nn.Module):
    """A module over maps of another number of dimensions."""

    def __init__(self, inner: nn.Module, dims: int) -> None:
        super().__init__()
        self.inner, self.dims = inner, dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x.flatten(2) if self.dims == 1 else x.unsqueeze(2))
        return y.unsqueeze(2) if self.dims == 1 else y.flatten(2, 3)


MIDDLES: list[tuple[int, Callable[[], nn.Module]]] = [
    (12, lambda: nn.Conv2d(8, 12, 3, padding=1)),
    (12, lambda: nn.Conv2d(8, 12, 1, groups=4, bias=False)),
    (8, lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    (24, lambda: nn.Conv2d(8, 24, 3, padding=1, groups=8)),
    (12, lambda: nn.ConvTranspose2d(8, 12, 2, stride=2)),
    (12, lambda: nn.ConvTranspose2d(8, 12, 2, groups=4)),
    (8, lambda: nn.ConvTranspose2d(8, 8, 2, groups=8)),
    (16, lambda: nn.ConvTranspose2d(8, 16, 2, groups=8, bias=False)),
    (8, lambda: nn.Sequential(nn.BatchNorm2d(8), nn.PReLU(8))),
    (8, lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
    (8, lambda: nn.PReLU(1)),
    (12, lambda: Last(nn.Linear(8, 12))),
    (12, lambda: Flat(nn.Sequential(nn.Conv1d(8, 12, 3, padding=1), nn.BatchNorm1d(12)), 1)),
    (8, lambda: Flat(nn.Sequential(nn.Conv3d(8, 8, 1, groups=8), nn.BatchNorm3d(8)), 3)),
    (12, lambda: Flat(nn.ConvTranspose1d(8, 12, 2), 1)),
]


def network(width: int, middle: Callable[[], nn.Module]) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), middle(), nn.ReLU(), nn.Conv2d(width, 2, 1))
    randomise(model, 0)
    return model.double().eval()


def anew(module: Any) -> nn.Module | None:
    """A module as its constructor makes it from the numbers that it holds."""
    if isinstance(module, nn.modules.conv._ConvNd):
        more = {"groups": module.groups, "bias": module.bias is not None}
        return type(module)(module.in_channels, module.out_channels, module.kernel_size, **more)  # type: ignore[arg-type]
    if isinstance(module, nn.Linear):
        return nn.Linear(module.in_features, module.out_features, module.bias is not None)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return type(module)(module.num_features, affine=module.affine, track_running_stats=module.track_running_stats)
    return nn.PReLU(module.num_parameters) if isinstance(module, nn.PReLU) else None


@pytest.mark.parametrize(("width", "middle"), MIDDLES)
def test_every_module_says_of_itself_what_it_is_and_a_fresh_network_takes_the_tensors(
    width: int, middle: Callable[[], nn.Module]
) -> None:
    model = network(width, middle)
    graph = trace(model, X)
    assert graph.by_name["0"].free.all(), graph.by_name["0"].reason
    for seed in (0, 1):
        plan = random_plan(graph, seed)
        small = compact(model, plan, graph)
        verify(mask(model, plan, graph), small, X)
        for name, module in small.named_modules():
            fresh = anew(module)
            if fresh is not None:
                shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
                assert {key: tensor.shape for key, tensor in fresh.state_dict().items()} == shapes, name
        for parameter in model[2].parameters():
            parameter.requires_grad_(False)
        filled = copy.deepcopy(model)
        fill(filled, small.state_dict())
        torch.testing.assert_close(filled(X), small(X), rtol=1e-12, atol=1e-12)
        assert str(filled) == str(small)
        frozen = {name for name, parameter in filled.named_parameters() if not parameter.requires_grad}
        assert frozen == {name for name, _ in model.named_parameters() if name.startswith("2.")}


def test_what_two_modules_share_they_share_when_filled() -> None:
    model = network(8, lambda: nn.Conv2d(8, 8, 1))
    model[2].weight = nn.Parameter(torch.randn(8, 8, 1, 1).double())
    model.insert(3, nn.Conv2d(8, 8, 1).double())
    model[3].weight = model[2].weight
    graph = trace(model, X)
    small = compact(model, PrunePlan.from_keep(graph, {"0": [1, 2, 5]}), graph)
    fill(model, small.state_dict())
    assert model[2].weight is model[3].weight
    assert torch.equal(model(X), small(X))


@pytest.mark.parametrize("wrong", [torch.zeros(8, 3, 3), torch.zeros(9, 3, 3, 3), torch.zeros(8, 3, 4, 3)])
def test_tensors_that_are_no_part_of_the_whole_are_refused(wrong: torch.Tensor) -> None:
    model = network(12, MIDDLES[0][1])
    with pytest.raises(ValueError, match=r"^0\.weight is \[.*\] where the whole is \[8, 3, 3, 3\]$"):
        fill(model, model.state_dict() | {"0.weight": wrong})
    fill(model, model.state_dict())


def test_what_is_kept_dead_stays_dead_until_its_handle_is_removed() -> None:
    model = network(12, lambda: nn.Sequential(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12))).train()
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"2.0": [0, 3, 4]})
    gone = [at for at in range(12) if at not in (0, 3, 4)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = keep_masked(model, plan, optimizer)
    norm: Any = model[2][1]  # type: ignore[index]
    assert not norm.bias[gone].any()  # before the first step already
    for alive in (False, False, True):
        model(X).square().sum().backward()
        optimizer.step()
        assert norm.bias[gone].any() == alive
        assert norm.bias[[0, 3, 4]].all()
        if not alive:
            assert not model[2][0].weight[gone].any()  # type: ignore[index]
            handle.remove()
            break
    norm.bias.data += 1
    model(X).square().sum().backward()
    optimizer.step()
    assert norm.bias[gone].any()


# ---- plans --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(network(12, MIDDLES[0][1]), X)


@pytest.mark.parametrize("seed", range(3))
def test_both_plans_keep_what_each_keeps(graph: ChannelGraph, seed: int) -> None:
    one, other = random_plan(graph, seed), random_plan(graph, seed + 10)
    both = one & other
    widths = {layer.name: layer.channels for layer in graph.all_layers}
    for name, channels in widths.items():
        sets = [set(plan.keep.get(name, range(channels))) for plan in (one, other)]
        assert both.keep.get(name, tuple(range(channels))) == tuple(sorted(sets[0] & sets[1]))
    assert [entry.position for entry in both.layers] == sorted(entry.position for entry in both.layers)
    assert both == other & one
    assert both.inputs == one.inputs
    assert one & one == one
    assert one & PrunePlan((), one.inputs) == one


def test_plans_show_what_stays(graph: ChannelGraph) -> None:
    """The whole of a plan is pages of numbers."""
    plan = PrunePlan.from_keep(graph, {"0": [0, 1, 5], "2": list(range(1, 12))})
    assert repr(plan) == "PrunePlan(2 layers lose channels, 14 of their 20 stay)"
    assert [repr(layer) for layer in plan.layers] == [
        "LayerKeep(0: 3 of 8 channels stay)",
        "LayerKeep(2: 11 of 12 channels stay)",
    ]
    assert [layer.removed for layer in plan.layers] == [5, 1]


def test_a_layer_is_never_left_without_a_channel(graph: ChannelGraph) -> None:
    removed = np.zeros(graph.group_count, bool)
    removed[graph.by_name["0"].groups] = True
    with pytest.raises(PlanError, match="nothing would be left of 0: keep at least one channel"):
        PrunePlan.from_removed(graph, removed)
    removed[graph.by_name["0"].groups[3]] = False
    assert PrunePlan.from_removed(graph, removed).layers == (LayerKeep("0", 0, 8, (3,)),)


def test_a_channel_that_cannot_leave_is_named_with_its_reason() -> None:
    class Adds(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self[0](x).chunk(2, 1)
            return self[1](torch.cat([left.flip(1), right], 1))

    model = Adds(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)).double()
    known = trace(model, X)
    assert known.by_name["0"].free.tolist() == [False] * 4 + [True] * 4
    with pytest.raises(PlanError, match=r"^channel 2 of 0 cannot be removed: .*; keep it$"):
        PrunePlan.from_keep(known, {"0": [0, 1, 3, 4, 5, 6]})
