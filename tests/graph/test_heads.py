"""Attention, channel shuffles, grouped and transposed convolutions: whatever is drawn, mask and compact agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, count_active_channels, mask, trace, verify
from seqprune.errors import PlanError
from seqprune.graph import ChannelGraph
from seqprune.graph.standins import STANDINS
from seqprune.graph.standins.operators import as_wide_as, gate_heads, split_sizes
from seqprune.testing.networks import Unit, example, random_plan, randomise

seeds = st.integers(0, 2**16)
shares = st.sampled_from([0.25, 0.5, 0.75])
few = st.integers(1, 4)
lawful = settings(max_examples=25)


class Attention(nn.Module):
    """As Ultralytics writes it: widths in attributes, values viewed in the shape of the input."""

    def __init__(self, heads: int, key: int, value: int) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.head_dim, self.scale = heads, key, value, key**-0.5
        width = heads * value
        self.qkv = Unit(width, heads * (2 * key + value), kernel=1, act=4)
        self.pe = Unit(width, width, groups=width, act=4)
        self.proj = Unit(width, width, kernel=1, act=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        key, value = self.key_dim, self.head_dim
        heads = self.qkv(x).view(batch, self.num_heads, 2 * key + value, height * width)
        q, k, v = heads.split([key, key, value], dim=2)
        weights = ((q * self.scale).transpose(-2, -1) @ k).softmax(dim=-1)
        attended = (v @ weights.transpose(-2, -1)).view(batch, channels, height, width)
        return self.proj(attended + self.pe(v.reshape(batch, channels, height, width)))


class AreaAttention(nn.Module):
    """The same with whole heads: the width of a head is the scale."""

    def __init__(self, inputs: int, heads: int, width: int, area: int) -> None:
        super().__init__()
        self.area, self.num_heads, self.head_dim, self.all_head_dim = area, heads, width, heads * width
        self.qkv = Unit(inputs, 3 * heads * width, kernel=1, act=4)
        self.pe = Unit(heads * width, heads * width, groups=heads * width, act=4)
        self.proj = Unit(heads * width, inputs, kernel=1, act=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = x.shape
        n = height * width // self.area
        qkv = self.qkv(x).flatten(2).transpose(1, 2).reshape(batch * self.area, n, self.all_head_dim * 3)
        heads = qkv.view(-1, n, self.num_heads, self.head_dim * 3).permute(0, 2, 3, 1)
        q, k, v = heads.split([self.head_dim] * 3, dim=2)
        weights = ((q * self.head_dim**-0.5).transpose(-2, -1) @ k).softmax(dim=-1)
        attended, v = (
            t.permute(0, 3, 1, 2).reshape(batch, height, width, self.all_head_dim).permute(0, 3, 1, 2)
            for t in (v @ weights.transpose(-2, -1), v)
        )
        return self.proj(attended + self.pe(v))


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.channel_shuffle(x, self.groups)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


@pytest.fixture(autouse=True)
def standins(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"Attention": "Attention", "AreaAttention": "AAttn", "AreaAttentionAsOfOld": "AAttn"}
    for name, known in theirs.items():
        monkeypatch.setitem(STANDINS, f"{__name__}.{name}", STANDINS[f"ultralytics.nn.modules.block.{known}"])


def between(width: int, *modules: nn.Module, out: int | None = None) -> nn.Module:
    """A convolution before and one after, in float64, with weights under which a wrong channel shows."""
    model = nn.Sequential(Unit(3, width), *modules, nn.Conv2d(out or width, 2, 1))
    randomise(model, 0)
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight)
    return model.double().eval()


def holds(model: nn.Module, seed: int, share: float) -> tuple[ChannelGraph, nn.Module]:
    graph = trace(model, example())
    plan = random_plan(graph, seed, share)
    masked, small = mask(model, plan, graph), compact(model, plan, graph)
    verify(masked, small, example(seed, 3))
    for a, b in zip(masked.train()(example(seed)), small.train()(example(seed)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    for layer in graph.all_layers:
        stay = len(plan.keep.get(layer.name, range(layer.channels)))
        assert count_active_channels(small.get_submodule(layer.name)) == stay
        assert count_active_channels(masked.get_submodule(layer.name)) == stay
    again = trace(small.eval(), example())
    verify(mask(small, p := random_plan(again, seed, 0.5), again), compact(small, p, again), example(seed))
    return graph, small


@lawful
@given(few, few, st.integers(1, 5), seeds, shares)
def test_attention_keeps_equally_many_values_in_each_head(
    heads: int, key: int, value: int, seed: int, share: float
) -> None:
    graph, small = holds(between(heads * value, Residual(Attention(heads, key, value))), seed, share)
    inner: Any = small.get_submodule("1.inner")
    assert inner.qkv.conv.out_channels == inner.num_heads * (2 * inner.key_dim + inner.head_dim)
    assert inner.head_dim * heads == inner.pe.conv.groups == small.get_submodule("0").conv.out_channels
    assert (inner.key_dim, inner.scale) == (key, key**-0.5)
    assert not any(barrier.module.startswith("1.inner") for barrier in graph.barriers)


@lawful
@given(st.integers(1, 6), few, few, st.sampled_from([1, 2, 4]), seeds, shares)
def test_area_attention_loses_whole_heads(
    inputs: int, heads: int, width: int, area: int, seed: int, share: float
) -> None:
    _, small = holds(between(inputs, Residual(AreaAttention(inputs, heads, width, area))), seed, share)
    inner: Any = small.get_submodule("1.inner")
    assert (inner.head_dim, inner.all_head_dim) == (width, inner.num_heads * width)
    assert inner.qkv.conv.out_channels == 3 * inner.all_head_dim


def test_an_uneven_loss_of_values_is_refused() -> None:
    graph = trace(between(4, Residual(Attention(2, 1, 2))), example())
    with pytest.raises(PlanError, match="values of the 2 heads"):
        PrunePlan.from_keep(graph, {"1.inner.qkv.conv": [0, 1, 2, 4, 5, 6, 7]})


@lawful
@given(st.integers(2, 3), few, few, st.booleans(), seeds, shares)
def test_grouped_convolutions_and_shuffles(
    groups: int, inputs: int, outputs: int, shuffle: bool, seed: int, share: float
) -> None:
    grouped = Unit(groups * inputs, groups * outputs, groups=groups)
    modules = [grouped, Shuffle(groups)] if shuffle else [grouped]
    holds(between(groups * inputs, *modules, Unit(groups * outputs, 3), out=3), seed, share)


def test_a_shuffle_loses_the_same_channels_of_each_section() -> None:
    """Keeping channel 0 of one section and channel 1 of the other would change their order."""
    graph = trace(between(4, Shuffle(2)), example())
    groups = graph.by_name["0.conv"].groups
    assert groups[0] == groups[2] != groups[1] == groups[3]


@lawful
@given(st.integers(1, 3), few, few, seeds, shares)
def test_transposed_convolutions(groups: int, inputs: int, outputs: int, seed: int, share: float) -> None:
    """Depthwise ones, with one input a group, pass their channels on."""
    layer = nn.ConvTranspose2d(groups * inputs, groups * outputs, 2, 2, groups=groups)
    holds(between(groups * inputs, layer, nn.ReLU(), Unit(groups * outputs, 3), out=3), seed, share)


@lawful
@given(st.integers(2, 4), few, seeds, shares)
def test_group_normalisation_loses_whole_groups(groups: int, width: int, seed: int, share: float) -> None:
    norm = nn.GroupNorm(groups, groups * width)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    _, small = holds(between(groups * width, norm, nn.SiLU()), seed, share)
    assert small[1].num_channels == small[1].num_groups * width == len(small[1].weight)


@lawful
@given(st.integers(1, 3), few, seeds, shares)
def test_gates_and_sections(heads: int, width: int, seed: int, share: float) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes = [heads * width, 2]
            self.wide = nn.Conv2d(heads * width, sum(self.sizes), 1)
            self.gates = nn.Conv2d(2, heads, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            body, rest = split_sizes(self.wide(x), self.sizes, "sizes")
            return gate_heads(as_wide_as(body, x), self.gates(rest).sigmoid())

    _, small = holds(between(heads * width, Gated()), seed, share)
    assert sum(small[1].sizes) == small[1].wide.out_channels
    assert small[1].gates.out_channels == heads


def test_a_section_that_a_module_splits_off_keeps_a_channel() -> None:
    """A list of widths with a zero in it would be another number of branches."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.wide = [3, 5], nn.Conv2d(4, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat(split_sizes(self.wide(x), self.sizes, "sizes"), 1)

    graph = trace(between(4, Branches(), out=8), example())
    for first, keep in ((0, range(3, 8)), (1, range(3))):
        with pytest.raises(PlanError, match="a section that 1 splits off"):
            PrunePlan.from_keep(graph, {"1.wide": keep})
        assert PrunePlan.from_keep(graph, {"1.wide": sorted({*keep, 7 * first})})


@pytest.mark.parametrize("make", [lambda: Attention(2, 3, 4), lambda: AreaAttention(5, 3, 4, 2)])
def test_a_standin_computes_what_the_module_computes(make: Any) -> None:
    module = make().double().eval()
    randomise(module, 0)
    x = torch.randn(2, module.qkv.conv.in_channels, 6, 6, dtype=torch.float64)
    theirs = STANDINS[f"{__name__}.{type(module).__name__}"](module, x)
    torch.testing.assert_close(theirs, module(x), rtol=1e-12, atol=1e-12)


class AreaAttentionAsOfOld(AreaAttention):
    """As Ultralytics 8.3 has it: the values are viewed in the shape of the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.num_heads * self.head_dim == x.shape[1]
        return super().forward(x)


@lawful
@given(few, few, seeds, shares)
def test_area_attention_that_is_as_wide_as_its_input(heads: int, width: int, seed: int, share: float) -> None:
    attention = AreaAttentionAsOfOld(heads * width, heads, width, 1)
    _, small = holds(between(heads * width, Residual(attention)), seed, share)
    assert small.get_submodule("0.conv").out_channels == small.get_submodule("1.inner").num_heads * width


@pytest.mark.parametrize(("kind", "bound"), [(AreaAttention, False), (AreaAttentionAsOfOld, True)])
def test_the_width_of_the_input_binds_attention_where_its_code_says_so(kind: type[AreaAttention], bound: bool) -> None:
    module = kind(4, 2, 2, 1).double().eval()
    graph = trace(between(4, Residual(module)), example())
    reasons = [balance.reason for balance in graph.balances]
    assert ("1.inner gives its values the shape of its input" in reasons) is bound
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    theirs = STANDINS[f"{__name__}.{kind.__name__}"](module, x)
    torch.testing.assert_close(theirs, module(x), rtol=1e-12, atol=1e-12)


def test_a_module_with_a_forward_of_its_own_is_traced_as_it_is() -> None:
    model = between(4, Attention(2, 1, 2))
    model[1].forward = lambda x: x.flip(1)
    assert not trace(model, example()).by_name["0.conv"].free.any()


class ByLength(nn.Module):
    def __init__(self, view: Any) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.view = view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.view(self.scale) * x + self.view(self.shift)


@pytest.mark.parametrize(
    "view",
    [
        lambda p: p.view(1, -1, 1, 1),
        lambda p: p.reshape((-1, 1, 1)),
        lambda p: p[:, None, None],
        lambda p: p[None, :, None, None],
    ],
)
def test_views_of_a_parameter_are_followed(view: Any) -> None:
    graph, small = holds(between(4, ByLength(view)), 3, 0.5)
    assert graph.by_name["0.conv"].free.all()
    assert len(small[1].scale) == len(small[1].shift) == small[0].conv.out_channels


@pytest.mark.parametrize(
    "view", [lambda p: p.view(1, 4, 1, 1), lambda p: p[:4, None, None], lambda p: p.exp().view(-1, 1, 1)]
)
def test_views_that_hold_for_one_length_only_are_not(view: Any) -> None:
    graph = trace(between(4, ByLength(view)), example())
    assert not graph.by_name["0.conv"].free.any()


def test_a_parameter_that_is_also_concatenated_keeps_its_width() -> None:
    """The list of a ``cat`` was not searched for parameters: one that another operator cuts would have shrunk there."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(1, 4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.mean((0, 2, 3), keepdim=True) * self.scale, self.scale], 1)

    graph, _ = holds(between(4, Beside(), out=8), 1, 0.5)
    assert "cat in 1 reads the parameter" in graph.by_name["0.conv"].reason


def test_sections_of_channels_that_lie_elsewhere_are_not_followed() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.sizes = nn.Conv2d(3, 8, 1), [3, 5]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat(split_sizes(self.first(x).transpose(1, 2), self.sizes, "sizes"), 1)

    graph = trace(Turned(), torch.rand(1, 3, 8, 8))
    assert "the channels are not in dimension 1" in graph.by_name["first"].reason
