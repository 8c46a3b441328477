"""Widths that modules remember: stated, seen in a pass, or beside a cut layer; and what owners of modules state."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import InputError, PlanError
from seqprune.graph import ChannelGraph, operator, register_rule, register_standin, register_widths, widths
from seqprune.graph.beside import Repeated, repeated
from seqprune.graph.numbers import numbers, put
from seqprune.graph.rules.table import DIMS, RULES
from seqprune.graph.standins import STANDINS
from seqprune.graph.standins.operators import split_sizes
from seqprune.graph.values import OPAQUE, Value
from seqprune.testing.networks import SplitBlock, random_plan, randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """What a test states is forgotten after it."""
    tables = (STANDINS, RULES, DIMS, widths._REGISTERED)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def net(block: nn.Module, reads: int = 8) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), block, nn.Conv2d(reads, 2, 1))
    randomise(model, 0)
    return model.double().eval()


def every_other(graph: ChannelGraph) -> PrunePlan:
    """Every other group leaves, as far as constraints allow."""
    odd = (np.arange(graph.group_count) % 2 == 1) & ~graph.pinned
    return PrunePlan.from_removed(graph, graph.legalise(odd, -np.arange(graph.group_count, dtype=float), ~graph.pinned))


def exact(model: nn.Module) -> tuple[ChannelGraph, PrunePlan, Any]:
    graph = trace(model, X)
    plan = every_other(graph)
    small = compact(model, plan, graph)
    verify(mask(model, plan, graph), small, X)
    for seed in range(3):
        again = trace(small, X)
        verify(mask(small, p := random_plan(again, seed), again), compact(small, p, again), X)
    return graph, plan, small


# ---- stated ---------------------------------------------------------------------------------------------------


class Halves(SplitBlock):
    """As Ultralytics' C2f: ``half`` is read by the exporter's own forward alone."""

    def __init__(self) -> None:
        super().__init__(8, 8, 4, 1, shortcut=True)
        self.half = 4


class Variant(Halves):
    """As users write them: a subclass that adds a little."""


class Otherwise(Halves):
    """A subclass whose ``half`` is something else."""

    def __init__(self) -> None:
        super().__init__()
        self.half = 3


class Without(Halves):
    """A subclass without the layer that the base has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cv1 = self.cv1, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv2(torch.cat([self.first(x), self.first(x)[:, :4]], 1))


@pytest.mark.parametrize(("kind", "half"), [(Halves, 2), (Variant, 2), (Otherwise, 3), (Without, 4)])
def test_subclasses_inherit_what_their_base_states_where_it_holds(kind: type[Halves], half: int) -> None:
    """A user's subclass of C2f exported wrongly: classes were matched by exact name, and ``c`` kept its width."""
    register_widths(Halves, half=("cv1.conv", 2))
    model = net(kind())
    graph = trace(model, X)
    name = "2.first.conv" if kind is Without else "2.cv1.conv"
    removed = ~graph.pinned
    removed[graph.by_name[name].groups[[0, 2, 4, 5]]] = False
    for layer in graph.all_layers:
        if name not in (layer.name, *graph.coupled(layer.name)):
            removed[layer.groups] = False
    plan = PrunePlan.from_removed(graph, removed)
    small = compact(model, plan, graph)
    verify(mask(model, plan, graph), small, X)
    assert small[2].half == half


def test_what_is_stated_of_a_transposed_layer_and_computed_with_keeps_what_it_makes() -> None:
    class Upwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.width = nn.ConvTranspose2d(8, 8, 1), 8

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(x) * self.width**-0.5

    register_widths(Upwards, width=("up", 1))
    graph, _, small = exact(net(Upwards()))
    assert not graph.by_name["2.up"].free.any()
    assert graph.by_name["0"].free.all()
    assert small[2].width == 8


@pytest.mark.parametrize("groups", [1, 2])
def test_what_a_transposed_layer_makes_lies_in_another_dimension(groups: int) -> None:
    class Upwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.half = nn.ConvTranspose2d(4, 12, 3, groups=groups), 6

    register_widths(Upwards, half=("up", 2))
    module = Upwards()
    facts = widths.held(module)
    assert facts == {"half": ("up", 2)}
    for layer in (nn.ConvTranspose2d(4, 8, 3, groups=groups), nn.Conv2d(4, 8, 3), nn.Linear(4, 8)):
        module.up = layer
        widths.update(module, facts)
        assert module.half == 4


def test_a_number_beside_a_list_that_a_rule_knows_of_follows_its_layer() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dims, self.width = [3, 5], 8
            self.wide = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat(split_sizes(self.wide(x), self.dims, "dims"), 1)

    _, _, small = exact(net(Cut()))
    assert small[2].width == sum(small[2].dims) == small[2].wide.out_channels == 4


def test_a_list_that_a_rule_knows_of_is_not_named_beside_a_layer(caplog: pytest.LogCaptureFixture) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dims = [3, 5]
            self.part = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, other = split_sizes(x, self.dims, "dims")
            return torch.cat([self.part(one), other], 1)

    with caplog.at_level(logging.INFO, "seqprune"):
        _, _, small = exact(net(Cut()))
    assert small[2].dims[0] == small[2].part.in_channels < 3
    assert caplog.records == []


def test_what_a_number_may_mean_is_told_from_the_least_on() -> None:
    model = net(Reparameterised(10, 10, width=10), 10)
    model[0] = nn.Conv2d(3, 10, 3, padding=1).double()
    graph = trace(model, X)
    gone = np.isin(np.arange(graph.group_count), [*graph.by_name["0"].groups[9:], *graph.by_name["2.a.0"].groups[2:]])
    assert [(each.attribute, each.after) for each in repeated(model, graph, gone)] == [
        *(("in_channels", (9,)), ("out_channels", (2,)), ("width", (2, 9)))
    ]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_number_repeats_the_width_of_a_layer_no_more_than_two_modules_down(depth: int) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.inner = 8, nn.Sequential(nn.Conv2d(8, 8, 1))
            for _ in range(depth - 2):
                self.inner = nn.Sequential(self.inner)
            if depth == 1:
                self.inner = self.inner[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    _, _, small = exact(net(Nested()))
    assert small[0].out_channels == 4
    assert small[2].width == (8 if depth == 3 else 4)


class Scaled(Halves):
    """Computes with what its base states."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.half**-0.5


class Compared(Halves):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * (y.shape[1] // self.half)


class Literal(Halves):
    """Knows by heart what its base holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.cv1(x).split(4, 1)[::-1], 1)


@pytest.mark.parametrize("kind", [Scaled, Compared, Literal])
def test_what_is_stated_is_watched_in_code_of_ones_own(kind: type[Halves]) -> None:
    """A subclass of C2f that computes with ``self.c`` came out wrong, and its proof blamed the product."""
    register_widths(Halves, half=("cv1.conv", 2))
    graph, _, _ = exact(net(kind()))
    assert not graph.by_name["2.cv1.conv"].free.any()
    assert any("numbers in the code" in barrier.reason for barrier in graph.barriers) == (kind is Literal)


class Sure(Halves):
    """Takes plain numbers alone, so that nothing is seen of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert type(self.half) is int
        return torch.cat(self.cv1(x).split(self.half, 1)[::-1], 1)


def test_sections_of_a_width_that_is_stated_are_followed_where_it_is_a_plain_number() -> None:
    register_widths(Halves, half=("cv1.conv", 2))
    graph, _, small = exact(net(Sure()))
    assert graph.by_name["2.cv1.conv"].free.all(), graph.by_name["2.cv1.conv"].reason
    assert small[2].half == 2
    alone = trace(Sure().double().eval(), torch.randn(2, 8, 6, 6).double())
    assert [len(balance.sections) for balance in alone.balances] == [2]


class Quarters(Halves):
    """Holds one width, and cuts by another."""

    def __init__(self) -> None:
        super().__init__()
        self.half = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert type(self.half) is int
        return torch.cat(self.cv1(x).split(4, 1)[::-1], 1)


def test_sections_of_another_width_are_not() -> None:
    register_widths(Halves, half=("cv1.conv", 4))
    layer = trace(net(Quarters()), X).by_name["2.cv1.conv"]
    assert not layer.free.any()
    assert "numbers in the code" in layer.reason


def test_sections_of_which_the_last_is_smaller_are_not() -> None:
    class Thirds(Halves):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.three = 3, nn.Conv2d(8, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert type(self.width) is int
            return torch.cat([*self.cv1(x).split(self.width, 1), self.three(x)], 1)

    register_widths(Thirds, width=("three", 1))
    layer = trace(net(Thirds(), 11), X).by_name["2.cv1.conv"]
    assert not layer.free.any()
    assert "numbers in the code" in layer.reason


def test_statements_that_name_no_class_or_no_layer() -> None:
    with pytest.raises(InputError, match="is no class of modules"):
        register_widths("pkg.C2f", c="cv1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is no class of modules"):
        register_standin(dict, lambda self, x: x)  # type: ignore[arg-type]
    for fact in (3, ("cv1",), ("cv1", 2.0), (2, "cv1"), (2, 2), ("cv1", 2, 3)):
        with pytest.raises(InputError, match=r"c=.* names no layer: give its path, or \(path, divisor\)"):
            register_widths(Halves, c=fact)  # type: ignore[arg-type]


# ---- seen in a pass ---------------------------------------------------------------------------------------------


class Splitting(nn.Module):
    """Cuts by numbers it holds, as PConv and many blocks with halves do."""

    def __init__(self, first: int, rest: int) -> None:
        super().__init__()
        self.first, self.rest = first, rest
        self.make = nn.Conv2d(8, first + rest, 1)
        self.part = nn.Conv2d(first, first, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = torch.split(self.make(x), [self.first, self.rest], 1)
        return torch.cat([self.part(a), b], 1)


class Equal(Splitting):
    """Sections of one width, given once."""

    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.make(x).split(self.first, 1)
        return torch.cat([self.part(a), b], dim=1)


class Mixed(Splitting):
    """One of the sizes is written out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.make(x).split((self.first, 6), dim=1)
        return torch.cat([self.part(a), b], dim=1)


def test_three_sections_by_numbers_that_a_module_holds() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = 2, 4, 3
            self.make, self.part = nn.Conv2d(8, 9, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b, c = self.make(x).split([self.one, self.two, self.three], 1)
            return torch.cat([a, self.part(b), c], 1)

    graph, _, small = exact(net(Three(), 9))
    assert graph.by_name["2.make"].free.all()
    assert (small[2].one + small[2].two + small[2].three, small[2].two) == (
        small[2].make.out_channels,
        small[2].part.in_channels,
    )


class Kernel(nn.Module):
    """A depthwise kernel of its own, with its number of groups in an attribute."""

    def __init__(self, also: str = "") -> None:
        super().__init__()
        self.width, self.also = 8, also
        self.register_buffer("blur", torch.full((8, 1, 3, 3), 1 / 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, self.blur, padding=1, groups=self.width)
        if self.also == "factor":
            return y / self.width
        if self.also == "rows":
            return y.view(2, -1, 36).split(self.width, 2)[0].unsqueeze(-1)
        if self.also == "stride":
            return F.conv2d(y, self.blur, padding=1, groups=8, stride=self.width)
        if self.also == "shape":
            return y.view(2, -1, 36)[:, :, :32].view(2, -1, self.width, 4)
        return y


@pytest.mark.parametrize(("block", "names"), [(Splitting(2, 6), ("first", "rest")), (Equal(), ("first",))])
def test_sections_by_numbers_that_a_module_holds(block: nn.Module, names: tuple[str, ...]) -> None:
    graph, _, small = exact(net(block))
    assert graph.by_name["2.make"].free.all()
    assert small[2].part.in_channels == small[2].first < block.first
    assert {w.attribute for w in graph.widths} == set(names)
    equal = {balance.reason for balance in graph.balances if len(balance.sections) > 1}
    assert equal == ({"2 splits them by a width it holds"} if len(names) == 1 else set())
    with pytest.raises(PlanError, match=r"sections of \(0,.*\) channels would stay"):
        PrunePlan.from_keep(graph, {"2.make": range(block.first, 8)})
    assert small[2].make.out_channels == small[2].first + (small[2].rest if len(names) > 1 else small[2].first)


def test_a_section_of_a_written_size_stays_whole() -> None:
    graph, _, small = exact(net(Mixed(2, 6)))
    assert graph.by_name["2.make"].free.tolist() == [True] * 2 + [False] * 6
    assert "2.make" in {layer.name for layer in graph.layers}
    assert "split sizes are numbers in the code" in graph.by_name["2.make"].reason
    assert (small[2].first, small[2].rest) == (1, 6)


def test_as_many_groups_as_an_attribute_says() -> None:
    graph, _, small = exact(net(Kernel()))
    assert graph.by_name["0"].free.all()
    assert small[2].width == small[2].blur.shape[0] < 8


def test_a_number_that_counts_two_layers_ties_none_of_them() -> None:
    """As many channels of both must stay, not the same ones."""

    class Compares(Kernel):
        def __init__(self) -> None:
            super().__init__()
            self.beside = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.beside(x)
            assert y.shape[1] == self.width
            return torch.cat([super().forward(x), y], 1)

    graph, _, small = exact(net(Compares(), 16))
    groups = [set(graph.by_name[name].groups.tolist()) for name in ("0", "2.beside")]
    assert [len(each) for each in groups] == [8, 8]
    assert not groups[0] & groups[1]
    assert small[2].width == small[2].beside.out_channels == small[2].blur.shape[0] < 8


def test_a_number_that_counts_what_nobody_follows_is_left() -> None:
    class Table(Kernel):
        def __init__(self) -> None:
            super().__init__()
            self.entries, self.table = 5, nn.Parameter(torch.ones(5, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert self.table.shape[0] == self.entries
            return super().forward(x)

    graph, _, small = exact(net(Table()))
    assert graph.by_name["0"].free.all()
    assert (small[2].entries, [width.attribute for width in graph.widths]) == (5, ["width"])


@pytest.mark.parametrize("also", ["factor", "rows", "stride", "shape"])
def test_an_attribute_that_is_used_for_more_does_not_change(also: str) -> None:
    _, _, small = exact(net(Kernel(also)))
    assert small[2].width == 8


def test_one_and_zero_are_no_widths() -> None:
    """Of a count of channels code is told that it is above zero."""

    class Flags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.none, self.one, self.two = 0, 1, 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x if self.none else x

    assert trace(net(Flags()), X).unread == (("2", "two"),)


def test_code_that_takes_no_counts_runs_with_plain_numbers() -> None:
    """``chunk`` wants an int in C: its module alone loses what a count would tell."""

    class Chunks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(self.parts, 1)
            return torch.cat([b, a], 1)

    graph, _, small = exact(net(nn.Sequential(Chunks(), Kernel())))
    assert graph.by_name["0"].free.all()
    assert small[2][0].parts == 2
    assert small[2][1].width == small[2][1].blur.shape[0] < 8


class Chunks(nn.Module):
    """Its code takes no count."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(x.chunk(self.parts, 1), 1)


@pytest.mark.parametrize(("modules", "followed"), [(3, True), (4, False)])
def test_up_to_three_such_modules_are_found_one_by_one(modules: int, followed: bool) -> None:
    graph = trace(net(nn.Sequential(*(Chunks() for _ in range(modules)), Kernel())), X)
    assert bool(graph.by_name["0"].free.all()) is followed


class Viewing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], -1).view(x.shape)


def test_more_such_modules_than_are_tried_one_by_one() -> None:
    """Sizes of tensors are counts as ever."""
    graph, _, _ = exact(net(nn.Sequential(*(Chunks() for _ in range(6)), Viewing())))
    assert graph.by_name["0"].free.all()
    assert graph.unread == ()


class Grouped(nn.Module):
    """Compares its number with a size of a weight that is cut per group of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.each = 4
        self.conv = nn.Conv2d(8, 8, 1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.each == self.conv.weight.shape[1]
        return self.conv(x)


def test_a_number_of_one_group_is_not_taken_for_that_of_all() -> None:
    graph, _, small = exact(net(Grouped()))
    assert not graph.by_name["0"].free.any()
    assert small[2].each == 4
    assert not graph.widths


class TrainingUses(nn.Module):
    """Hands its width on in inference, and computes with it in training, where nothing can be watched any more."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return x * float(torch.arange(self.width).sum())
        return x.view(2, self.width, 6, 6)


def test_what_could_not_be_watched_in_training_does_not_change() -> None:
    graph, _, _ = exact(net(TrainingUses()))
    assert not graph.by_name["0"].free.any()
    assert graph.unread == ()


# ---- beside a cut layer -----------------------------------------------------------------------------------------


class Reparameterised(nn.Module):
    """Knows its widths for the step that makes one convolution of its branches."""

    def __init__(self, inputs: int = 8, outputs: int = 8, **more: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = inputs, outputs
        self.a = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
        self.b = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        vars(self).update(more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.a(x) + self.b(x))

    def deploy(self) -> nn.Conv2d:
        """Fails where the attributes are not as the branches are."""
        made = nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1).double()
        with torch.no_grad():
            made.weight.zero_()
            for conv, norm in (self.a, self.b):
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                weight = F.pad(conv.weight, [(3 - conv.kernel_size[0]) // 2] * 4) * scale[:, None, None, None]
                made.weight += weight
        return made


@pytest.mark.parametrize("widths_", [(8, 8), (8, 12)])
def test_the_widths_of_a_block_that_is_fused_for_deployment(widths_: tuple[int, int]) -> None:
    """``in_channels`` kept what the block was built with: only the deploy step, after training, reads it."""
    _, _, small = exact(net(Reparameterised(*widths_), widths_[1]))
    block = small[2]
    assert (block.in_channels, block.out_channels) == (block.a[0].in_channels, block.a[0].out_channels)
    assert block.in_channels < 8
    assert block.deploy().weight.shape == block.a[0].weight.shape


def test_numbers_beside_those_that_are_known_follow_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = f"{Reparameterised.__module__}.{Reparameterised.__qualname__}"
    monkeypatch.setitem(widths.WIDTH_ATTRIBUTES, kind, {"out_channels": ("a.0", 1)})
    register_widths(Reparameterised, out_channels="a.0")
    _, _, small = exact(net(Reparameterised(8, 12), 12))
    block = small[2]
    assert (block.in_channels, block.out_channels) == (block.a[0].in_channels, block.a[0].out_channels)
    assert block.in_channels < 8


def test_what_is_stated_follows_whatever_it_is_called() -> None:
    register_widths(Reparameterised, total="a.0", half=("a.0", 2))
    model = net(Reparameterised(8, 12, total=12, half=6), 12)
    graph = trace(model, X)
    block: Any = compact(model, PrunePlan.from_keep(graph, {"2.a.0": [0, 1, 2, 3]}), graph)[2]
    assert (block.total, block.half) == (4, 2)


class Renamed(Reparameterised):
    """The same, in words of its author."""

    def __init__(self, names: tuple[str, str]) -> None:
        super().__init__(8, 12)
        self.names = names
        del self.in_channels, self.out_channels
        vars(self).update(zip(names, (8, 12), strict=True))


@pytest.mark.parametrize(
    "names",
    [
        *("in_ch out_ch", "nin nout", "num_in num_out", "_in _out", "C_in C_out", "inp oup", "c1 c2", "ch_in ch_out"),
        *("n_in n_out", "input_dim output_dim", "inplanes planes", "cin cout", "inchs outchs", "chs chs_out"),
    ],
)
def test_names_that_people_give_widths(names: str) -> None:
    """``in_ch``, ``nin`` or ``C_in`` kept what the block was built with."""
    one, other = names.split()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Renamed((one, other)), nn.Conv2d(12, 2, 1)).double().eval()
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"0": [0, 1, 2], "1.a.0": [0, 1, 2, 3, 4]})
    block: Any = compact(model, plan, graph)[1]
    assert (getattr(block, one), getattr(block, other)) == (3, 5)


def test_a_norm_before_a_layer_is_no_layer_that_makes_channels() -> None:
    class Before(Reparameterised):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.norm(x))

    model = net(Before())
    graph = trace(model, X)
    block: Any = compact(model, PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2, 3, 4]}), graph)[2]
    assert (block.in_channels, block.out_channels) == (3, 5)


def test_a_depthwise_layer_before_a_layer_reads_and_makes_the_same_channels() -> None:
    class Before(Reparameterised):
        def __init__(self) -> None:
            super().__init__(8, 12)
            self.deep = nn.Conv2d(8, 8, 1, groups=8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.deep(x))

    model = net(Before(), 12)
    graph = trace(model, X)
    block: Any = compact(model, PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2, 3, 4]}), graph)[2]
    assert (block.in_channels, block.out_channels) == (3, 5)


def test_slopes_before_a_layer_are_no_layer_either() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.PReLU(8), Reparameterised(8, 12), nn.Conv2d(12, 2, 1)).double().eval()
    graph = trace(model, X)
    block: Any = compact(model, PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2, 3, 4]}), graph)[2]
    assert (block.in_channels, block.out_channels) == (3, 5)


@pytest.mark.parametrize(
    ("name", "named", "other"),
    [("head_dim", True, False), ("kernel_size", False, True), ("kernel_dim", True, False), ("what", False, False)],
)
def test_what_a_name_says_of_a_number(name: str, named: bool, other: bool) -> None:
    """That it is a width goes before that it is something else."""
    found = Repeated("block", name, 8, (3,))
    assert (found.named, found.other, found.clear) == (named, other, named)


class Listed(Reparameterised):
    """The same, its widths in a container."""

    def __init__(self, held: object, read: Callable[[Any], tuple[int, int]], outputs: int = 12) -> None:
        super().__init__(8, outputs)
        del self.in_channels, self.out_channels
        self.widths, self.read = held, read

    def deploy(self) -> nn.Conv2d:
        self.in_channels, self.out_channels = self.read(self.widths)
        return super().deploy()


@pytest.mark.parametrize(
    ("held", "read", "after"),
    [
        ([8, 12], tuple, [3, 5]),
        ((8, 12, "relu"), lambda held: held[:2], (3, 5, "relu")),
        ({0: 8, 1: 12, "act": 8}, lambda held: (held[0], held[1]), {0: 3, 1: 5, "act": 8}),
        ({"in_channels": 8, "c2": 12, "stride": 8}, lambda held: (held["in_channels"], held["c2"]), None),
    ],
)
def test_widths_in_lists_and_dictionaries_follow(held: Any, read: Any, after: Any) -> None:
    """They were named, and the deploy step failed all the same."""
    model = net(Listed(held, read), 12)
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2, 3, 4]})
    before = copy.deepcopy(held)
    block: Any = compact(model, plan, graph)[2]
    assert block.deploy().weight.shape == block.a[0].weight.shape == (5, 3, 3, 3)
    assert type(block.widths) is type(held)
    assert model[2].widths is held
    assert held == before
    assert after is None or block.widths == after
    assert type(held) is not dict or block.widths.get("stride", 8) == 8


def test_a_width_in_a_list_that_the_forward_pass_reads_is_left(caplog: pytest.LogCaptureFixture) -> None:
    class Reads(Listed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / self.widths[0]  # type: ignore[index]

    _, _, small = exact(net(Reads([8, 12], tuple), 12))
    assert small[2].widths[0] == 8
    assert small[2].widths[1] == small[2].a[0].out_channels < 12
    assert "2.widths[0] is 8" in caplog.text


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("name", ["dims", "splits", "in_sections"])
def test_lists_by_which_code_takes_channels_apart_follow(name: str, kind: type) -> None:
    """As mixed convolutions do, which have kernels of their own for every part (M. Tan, Q. Le, "MixConv", 2019)."""

    class Cuts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            vars(self)[name] = kind([2, 6])
            self.make, self.part = nn.Conv2d(8, 8, 1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = torch.split(self.make(x), vars(self)[name], 1)
            return torch.cat([self.part(a), b], 1)

    model = net(Cuts())
    graph, _, small = exact(model)
    assert graph.by_name["2.make"].free.all()
    assert vars(small[2])[name] == kind([1, 3])
    assert vars(model[2])[name] == kind([2, 6])


@pytest.mark.parametrize("use", [sum, np.cumsum, torch.tensor, str, range, sorted, lambda sizes: sizes == [2, 6]])
def test_lists_that_code_computes_with_besides_are_right_or_pin(use: Callable[[Any], object]) -> None:
    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.splits = [2, 6]
            self.make, self.part = nn.Conv2d(8, 8, 1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            use(self.splits[0] if use is range else self.splits)
            a, b = torch.split(self.make(x), self.splits, 1)
            return torch.cat([self.part(a), b], 1)

    graph, _, small = exact(net(Uses()))
    assert small[2].splits[0] == 2
    assert not graph.by_name["2.make"].free[:2].any()


HALVES: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "split": lambda m, x: torch.cat(torch.split(x, m.width // 2, 1)[::-1], 1),
    "split by a number that it holds": lambda m, x: (
        torch.stack(x.split(m.width // m.paths, dim=1)).sum(0).repeat(1, 2, 1, 1)
    ),
    "listed": lambda m, x: torch.cat(x.split([m.width // 2, m.width // 2], 1)[::-1], 1),
    "sliced": lambda m, x: torch.cat([x[:, m.width // 2 :], x[:, : m.width // 2]], 1),
    "viewed as two": lambda m, x: x.view(len(x), 2, m.width // 2, *x.shape[2:]).flip(1).reshape(x.shape),
}


@pytest.mark.parametrize("name", HALVES)
def test_halves_of_a_width_that_a_module_holds_are_followed(name: str) -> None:
    """CSPDarknet and SKNet split by ``self.expand_chs // 2``: all their channels had to stay."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.paths = 8, 2
            self.make = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return HALVES[name](self, self.make(x).relu())

    graph, _, small = exact(net(Half()))
    assert graph.by_name["2.make"].free.all(), graph.by_name["2.make"].reason
    assert small[2].width == small[2].make.out_channels < 8


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: torch.cat(x.split(m.width // 2, 1)[::-1], 1) * (m.width % 2 == 0),
        lambda m, x: torch.cat(x.split(m.other // 2, 1)[::-1], 1),
        lambda m, x: torch.cat(x.split(m.width // 2, 1)[::-1], 1) / m.width,
        lambda m, x: F.pad(x, (m.width // 8,) * 4),
        lambda m, x: torch.cat(x.split([m.width // 2, m.other // 2], 1)[::-1], 1),
        lambda m, x: torch.cat(x.split([m.width // 4, m.width // 4, m.width // 2], 1)[::-1], 1),
        lambda m, x: x[..., : m.width // 2],
    ],
    ids=["a rest", "another number", "the number itself", "a padding", "two numbers", "other parts", "columns"],
)
def test_halves_that_code_uses_besides_are_right_or_pin(code: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.other = 8, 8
            self.make, self.more = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.more(code(self, self.make(x).relu())[:, :, : self.other])

    exact(net(Half()))


def test_in_which_containers_a_number_may_be_a_width() -> None:
    """By the name of a list, and in a dictionary by that of the entry, or its own where entries are numbered."""
    module = nn.Module()
    held = {
        "planes": [8],
        "splits": (8,),
        "sides": (8,),
        "cfg": {"width": 8, "depth": 8, 3: 8},
        "chs": {3: 8, "depth": 8, None: 8},
    }
    vars(module).update(held, stride=8)
    assert [(name, number) for name, number in numbers(module) if number == 8] == [
        *(("planes[0]", 8), ("splits[0]", 8), ("cfg['width']", 8), ("chs[3]", 8), ("stride", 8))
    ]
    for name in ("planes[0]", "cfg['width']", "chs[3]", "stride"):
        put(module, name, 5)
    assert (module.planes, module.sides, module.stride) == ([5], (8,), 5)
    assert (module.cfg, module.chs) == ({"width": 5, "depth": 8, 3: 8}, {3: 5, "depth": 8, None: 8})
    assert held["planes"] == [8]


def test_widths_in_lists_and_numbers_of_no_known_meaning_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Where they may mean more than one layer they kept what the block was built with, and nobody was told."""
    model = net(Reparameterised(8, 8), 8)
    vars(model[2]).update(
        chs=[8, 8], planes=(8, 4), cfg={"width": 8, "depth": 2}, a_number=8, stride=8, flags=[True, 3]
    )
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2, 3, 4]})
    with caplog.at_level(logging.WARNING, "seqprune"):
        block: Any = compact(model, plan, graph)[2]
    assert (block.chs, block.planes, block.cfg, block.a_number) == ([8, 8], (8, 4), {"width": 8, "depth": 2}, 8)
    assert sorted(record.message.split(" is ")[0] for record in caplog.records) == [
        *("2.a_number", "2.cfg['width']", "2.chs[0]", "2.chs[1]", "2.planes[0]")
    ]


def test_the_number_of_a_whole_network() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_features = 12
            self.body, self.head = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU()), nn.Conv2d(12, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x))

    _, _, small = exact(Whole().double().eval())
    assert small.num_features == small.head.in_channels == 6


class Rows(nn.Module):
    """Linear layers over the channels, one of them far down, and numbers that repeat their widths."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.hidden_dim, self.out_dim = 8, 12, 10
        self.body = nn.Sequential(nn.Linear(8, 12), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(12, 10))))
        self.last = nn.Linear(10, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.body(x.movedim(1, -1)))).movedim(-1, 1)


def test_layers_beside_a_module_lie_at_most_two_levels_down() -> None:
    model = net(nn.Sequential(Rows()))
    graph = trace(model, X)
    plan = PrunePlan.from_keep(
        graph, {"0": [0, 1, 2], "2.0.body.0": [0, 1], "2.0.body.1.1.0": [0], "2.0.last": [0, 1, 2]}
    )
    block: Any = compact(model, plan, graph)[2][0]
    assert (block.dim, block.hidden_dim, block.out_dim) == (3, 2, 1)
    inner: Any = nn.Module()
    inner.dim, inner.far = 12, nn.Sequential(nn.Sequential(nn.Linear(12, 12)))
    inner.forward = inner.far.forward
    far = nn.Sequential(nn.Linear(3, 12), inner, nn.Linear(12, 2)).double().eval()
    graph = trace(far, torch.randn(4, 3, dtype=torch.float64))
    plan = PrunePlan.from_keep(graph, {"0": [0, 1], "1.far.0.0": [0, 1]})
    assert compact(far, plan, graph)[1].dim == 12


def test_what_is_unclear_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    model = net(Reparameterised(8, 8, width=8, stride=8, max_size=7))
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2, 3, 4]})
    with caplog.at_level(logging.INFO, "seqprune"):
        small = compact(model, plan, graph)
    assert (small[2].in_channels, small[2].out_channels, small[2].width, small[2].stride) == (3, 5, 8, 8)
    told = {record.message.split(":")[0]: record.levelname for record in caplog.records}
    assert told == {
        "2.width is 8, layers beside it have 3 or 5 now": "WARNING",
        "2.stride is 8, layers beside it have 3 or 5 now": "INFO",
    }


def test_a_number_that_is_no_width_by_name_is_left_even_where_all_agree() -> None:
    model = net(Reparameterised(8, 8, stride=8))
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"0": [0, 1, 2], "2.a.0": [0, 1, 2]})
    small = compact(model, plan, graph)
    assert (small[2].in_channels, small[2].out_channels, small[2].stride) == (3, 3, 8)


def test_a_network_that_loses_nothing_beside_it_is_left() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), Reparameterised(6, 8), nn.Conv2d(8, 2, 1))
    model = model.double().eval()
    graph = trace(model, X)
    small = compact(model, PrunePlan.from_keep(graph, {"0": [0, 1]}), graph)
    assert (small[3].in_channels, small[3].out_channels) == (6, 8)
    gone = np.isin(np.arange(graph.group_count), graph.by_name["0"].groups[2:])
    assert repeated(model, graph, gone) == []


# ---- rules and stand-ins of one's own -----------------------------------------------------------------------------


class Cut(nn.Module):
    """Computes with a number of channels in a way that nobody sees through."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = int(0.5 * x.shape[1])
        return torch.cat([x[:, half:], x[:, :half]], 1)


class CutAgain(Cut):
    pass


class CutOtherwise(Cut):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * x.shape[1]


def test_a_standin_of_ones_own() -> None:
    assert not exact(net(Cut()))[0].by_name["0"].free.any()
    register_standin(Cut, lambda self, x: torch.cat(x.chunk(2, 1)[::-1], 1))
    assert exact(net(Cut()))[0].by_name["0"].free.all()
    assert exact(net(CutAgain()))[0].by_name["0"].free.all()
    assert not exact(net(CutOtherwise()))[0].by_name["0"].free.any()


def test_a_rule_of_ones_own() -> None:
    @operator
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.cumsum(3)], 1)

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return doubled(x)

    barrier = trace(net(Doubled(), 16), X).barriers[0]
    assert (barrier.op, barrier.reason) == ("doubled", "no rule for this operator")

    @register_rule("doubled", dims=4)
    def rule(r: Any, out: torch.Tensor, x: torch.Tensor) -> Value:
        value = r.followed(x)
        return Value(torch.as_tensor(value.known()).repeat(2).numpy(), 1, value.zero)

    assert exact(net(Doubled(), 16))[0].by_name["0"].free.all()
    assert DIMS["doubled"] == range(4, 5)


def test_a_rule_of_ones_own_is_given_arguments_by_their_names() -> None:
    """Though one of them is called as torch calls the first."""

    @operator
    def blended(x: torch.Tensor, share: float, *, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return x + share * input

    @register_rule("blended", dims=4)
    def rule(r: Any, out: torch.Tensor, x: torch.Tensor, share: float, *, input: torch.Tensor) -> Value:  # noqa: A002
        r.tie(r.followed(x).known(), r.followed(input).known(), "blended")
        return r.followed(x)

    class Blends(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return blended(x, 2.0, input=x.relu())

    assert exact(net(Blends()))[0].by_name["0"].free.all()


def test_a_rule_of_ones_own_that_is_wrong_about_the_shape() -> None:
    @operator
    def paired(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, (4, 2)).sum(2)

    @register_rule("paired", dims=4)
    def rule(r: Any, out: torch.Tensor, x: torch.Tensor) -> Value:
        return r.followed(x)

    class Pairs(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return paired(x)

    layer = trace(net(Pairs(), 4), X).by_name["0"]
    assert not layer.free.any()
    assert "leaves another number of channels than its rule expects" in layer.reason


def test_a_rule_of_ones_own_that_loses_channels_in_place() -> None:
    @operator
    def wiped_(x: torch.Tensor) -> torch.Tensor:
        return x.cumsum_(1)

    @register_rule("wiped", dims=4)
    def rule(r: Any, out: torch.Tensor, x: torch.Tensor) -> Value:
        return OPAQUE

    class Wipes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wiped_(x.chunk(2, 1)[0])
            return x

    layer = trace(net(Wipes()), X).by_name["0"]
    assert not layer.free[:4].any()
    assert "shares its memory in a way that is not followed" in layer.reason


def test_the_page_says_what_holds() -> None:
    """What ``docs/modules.md`` states of one's own modules, run as it stands."""
    page = Path(__file__).parents[2] / "docs" / "modules.md"
    code = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)[-1]
    names: dict[str, Any] = {"torch": torch, "nn": nn, "__name__": __name__}
    exec(compile(code, str(page), "exec"), names)  # noqa: S102
    _, _, small = exact(names["Halves"]().double().eval())
    assert small.half == small.cv1.out_channels // 2 < 8
    assert exact(net(names["Swap"]()))[0].by_name["0"].free.all()

    class Cumulated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return names["cumulated"](x)

    assert exact(net(Cumulated()))[0].by_name["0"].free.all()
