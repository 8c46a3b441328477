"""Every rule is asked with one dimension more and one fewer than it is for: exact, pinned or refused, never wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import ModelError
from seqprune.graph.rules import RULES
from seqprune.graph.rules.table import ANY, DIMS
from seqprune.graph.standins.operators import attend_heads, gate_heads
from seqprune.testing.networks import random_plan, randomise

Call = Callable[[torch.Tensor], torch.Tensor]
WIDTH = 8
SIDE = 6


def pools(dims: int) -> Mapping[str, Call]:
    """Pooling with windows that reach over three neighbours, or over all channels."""
    one: dict[str, Any] = {"kernel_size": 3, "stride": 1}
    return {
        f"max_pool{dims}d": lambda x: getattr(F, f"max_pool{dims}d")(x, padding=1, **one),
        f"avg_pool{dims}d": lambda x: getattr(F, f"avg_pool{dims}d")(x, padding=1, **one),
        f"lp_pool{dims}d": lambda x: getattr(F, f"lp_pool{dims}d")(x, 2.0, **one),
        f"adaptive_max_pool{dims}d": lambda x: getattr(F, f"adaptive_max_pool{dims}d")(x, SIDE),
        f"adaptive_avg_pool{dims}d": lambda x: getattr(F, f"adaptive_avg_pool{dims}d")(x, SIDE),
        f"max_pool{dims}d_with_indices": lambda x: found(dims, x, padding=1, **one)[0],
        f"adaptive_max_pool{dims}d_with_indices": lambda x: getattr(F, f"adaptive_max_pool{dims}d")(x, SIDE, True)[0],
        f"max_unpool{dims}d": lambda x: getattr(F, f"max_unpool{dims}d")(*found(dims, x, kernel_size=1), 1),
    }


def found(dims: int, x: torch.Tensor, **settings: Any) -> Any:
    """Maxima and where they lie."""
    return getattr(F, f"max_pool{dims}d")(x, return_indices=True, **settings)


def convolutions(space: int) -> Mapping[str, Callable[[], nn.Module]]:
    kinds = {f"conv{space}d": f"Conv{space}d", f"conv_transpose{space}d": f"ConvTranspose{space}d"}
    return {name: lambda kind=kind: getattr(nn, kind)(WIDTH, WIDTH, 1) for name, kind in kinds.items()}


CALLS: Mapping[str, Call] = {
    **pools(1),
    **pools(2),
    **pools(3),
    "gate_heads": lambda x: gate_heads(x, x.new_ones(len(x), 2, *x.shape[2:])),
    "fold": lambda x: F.fold(x, (1, SIDE), 1),
    "grid_sample": lambda x: F.grid_sample(x, x.new_zeros(len(x), *x.shape[2:], x.dim() - 2), align_corners=False),
}


ANYWHERE: Mapping[str, Call] = {
    "interpolate": lambda x: F.interpolate(x, size=(SIDE,) * (x.dim() - 2)),
    "upsample": lambda x: F.upsample(x, size=(SIDE,) * (x.dim() - 2)),
    "upsample_nearest": lambda x: F.upsample_nearest(x, size=(SIDE,) * (x.dim() - 2)),
    "upsample_bilinear": lambda x: F.upsample_bilinear(x, size=(SIDE,) * (x.dim() - 2)),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "instance_norm": F.instance_norm,
    "torch.batch_norm": lambda x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False),
    "torch.instance_norm": lambda x: torch.instance_norm(x, None, None, None, None, True, 0.1, 1e-5, False),
    "group_norm": lambda x: F.group_norm(x, 2),
    "channel_shuffle": lambda x: torch.channel_shuffle(x, 2),
    "native_channel_shuffle": lambda x: torch.native_channel_shuffle(x, 2),
}
"""These take the channels from dimension 1 however many there are, and their rules ask for them there."""


class Attend(nn.Module):
    """Two heads of one query, one key and two values."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(attend_heads(x, 2, 1, self.width, 1.0, 1, {"value": "width"}), 1)


LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    **convolutions(1),
    **convolutions(2),
    **convolutions(3),
    "attend_heads": Attend,
}


class Between(nn.Module):
    """Two linear layers over the channels with an operator between; any number of dimensions does."""

    def __init__(self, between: Call | nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.between = between
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.between(self.first(x.movedim(1, -1)).movedim(-1, 1).contiguous())
        return self.last(y.movedim(1, -1))


def exact_or_refused(model: nn.Module, x: torch.Tensor, plans: int = 3) -> None:
    try:
        graph = trace(model, x)
    except ModelError:  # torch itself takes no such tensor
        return
    for seed in range(plans):
        plan: PrunePlan = random_plan(graph, seed)
        verify(mask(model, plan, graph), compact(model, plan, graph), x)


def test_every_rule_says_how_many_dimensions_it_is_for() -> None:
    assert DIMS.keys() == RULES.keys()
    assert {name for name, dims in DIMS.items() if dims != ANY} == CALLS.keys() | LAYERS.keys()


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_takes_channels_from_dimension_one_alone(name: str) -> None:
    call = ANYWHERE[name]
    followed = []
    for count in (2, 3, 4, 5):
        x = torch.randn(2, 3, *(SIDE,) * (count - 2), dtype=torch.float64)
        exact_or_refused(Between(call), x, plans=1)
        with contextlib.suppress(ModelError):
            followed += [count] if trace(Between(call), x).by_name["first"].free.any() else []
    exact_or_refused(
        Between(lambda x: call(x.movedim(1, -1)).movedim(-1, 1)), torch.randn(2, 3, 4, 4).double(), plans=1
    )
    assert followed or name == "group_norm", "the test asks for what is never followed"


@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("name", [*CALLS, *LAYERS])
def test_one_dimension_more_and_one_fewer(name: str, step: int) -> None:
    """``max_pool3d`` of four dimensions was taken for one that leaves channels alone: compact and mask disagreed."""
    between = CALLS[name] if name in CALLS else LAYERS[name]()
    dims = DIMS[name]
    if not step:
        graph = trace(Between(between), torch.randn(2, 3, *(SIDE,) * (dims[0] - 2), dtype=torch.float64))
        assert graph.by_name["first"].free.any(), "the test asks for what is never followed"
    for count in {dims[0] + step, min(dims[-1], 5) + step}:
        shape = (2, 3, *(SIDE,) * (count - 2))
        if count >= 2:
            exact_or_refused(Between(between), torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ("pool", "dims"), [(nn.MaxPool3d(3, 1, 1), 4), (nn.AvgPool3d((2, 1, 1)), 4), (nn.MaxPool2d(3, 1, 1), 3)]
)
def test_pooling_over_channels_pins_them(pool: nn.Module, dims: int) -> None:
    model = Between(pool)
    model.last = nn.Linear(4 if isinstance(pool, nn.AvgPool3d) else WIDTH, 2).double()
    layer = trace(model, torch.randn(2, 3, *(SIDE,) * (dims - 2), dtype=torch.float64)).by_name["first"]
    assert not layer.free.any()
    assert f"runs on a tensor of {dims} dimensions" in layer.reason


@pytest.mark.parametrize("reduce", [lambda x: x.sum(()), lambda x: x.mean([]), lambda x: x.sum(dim=())])
def test_no_dimensions_are_all_of_them(reduce: Call) -> None:
    """``x.sum(())`` sums over channels as well."""
    model = Between(lambda x: x + reduce(x))
    exact_or_refused(model, torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64))
    assert not trace(model, torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64)).by_name["first"].free.any()


def test_an_index_that_is_true_adds_a_dimension() -> None:
    model = Between(lambda x: x[True][0])
    exact_or_refused(model, torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64))
    assert "indexed by a tensor" in trace(model, torch.randn(1, 3, 2, 2, dtype=torch.float64)).by_name["first"].reason


def test_an_empty_part_of_another_shape_is_joined_as_torch_joins_it() -> None:
    """It has no dimension 1: an IndexError that was reported as the network's own."""
    model = Between(lambda x: torch.cat([torch.empty(0, dtype=x.dtype), x], 1))
    graph = trace(model, x := torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64))
    plan = PrunePlan.from_keep(graph, {"first": [0, 5]})
    verify(mask(model, plan, graph), compact(model, plan, graph), x)
