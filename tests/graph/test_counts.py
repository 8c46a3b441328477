"""Numbers of channels in code: unused they are free, handed on whole they are followed, anything else pins."""

# ruff: noqa: SIM300, SIM201, RUF005 - what is asked are the ways in which code has it

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import compact, mask, trace, verify
from seqprune.graph import ChannelGraph
from seqprune.graph.counts import Count, WatchedSize, sizes_of
from seqprune.graph.deferred import Deferred
from seqprune.graph.reader import Held, Reader
from seqprune.testing.networks import random_plan, randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
WIDTH = 8
Code = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Grouped(nn.GroupNorm):
    """As mixed precision has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float().double()).type(x.dtype)


class Written(nn.GroupNorm):
    """Its code knows the number of groups by heart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 4, self.weight, self.bias, self.eps)


class Strict(Written):
    """And asks for a number that is one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert type(self.num_groups) is int
        return super().forward(x)


class Borrowing(nn.Conv2d):
    """Has a number of groups of its own, and the weight of another layer."""

    def __init__(self, lender: nn.Conv2d) -> None:
        super().__init__(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.lenders = (lender,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.lenders[0].weight, padding=1, groups=self.groups)


class Net(nn.Module):
    """A convolution, code, and a convolution; layers of the same width beside them, for the code to use."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 2, 1)
        self.other = nn.Conv2d(3, WIDTH, 1)
        self.squeeze = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, WIDTH))
        self.up, self.qkv = nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2), nn.Linear(WIDTH, 3 * WIDTH)
        self.deep = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.borrowing = Borrowing(self.deep)
        self.twin = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.twin.weight = self.deep.weight
        self.norm, self.grouped = nn.BatchNorm2d(WIDTH), Grouped(4, WIDTH)
        self.written, self.strict, self.one = Written(4, WIDTH), Strict(4, WIDTH), nn.Parameter(torch.ones(1, 1, 1, 1))
        self.gamma = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.turned = nn.Parameter(torch.rand(1, WIDTH, 1, 1) + 0.5)
        self.plain, self.quarter = nn.GroupNorm(2, WIDTH), nn.Conv2d(WIDTH, WIDTH, 1, groups=4)
        self.register_buffer("blur", torch.full((WIDTH, 1, 3, 3), 1 / 9))
        for dims in (1, 2, 3):
            self.register_buffer(f"points{dims}", torch.full((WIDTH, 1, *[1] * dims), 0.5))
        self.scale, self.heads = 3, 2
        self.code = code
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        return self.last(self.code(self, self.first(x)))


def exact(model: nn.Module) -> ChannelGraph:
    """Whatever is removed, in both modes, and again from what stayed."""
    graph = trace(model, X)
    for seed in range(3):
        plan = random_plan(graph, seed)
        masked, small = mask(model, plan, graph), compact(model, plan, graph)
        verify(masked, small, X)
        small.train()(X)
        again = trace(small.eval(), X)
        verify(mask(small, p := random_plan(again, seed), again), compact(small, p, again), X)
    return graph


def squeezed(m: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, _, _ = x.size()
    return x * torch.sigmoid(m.squeeze(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1).expand_as(x))


def attended(m: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    assert tokens.shape[2] == c
    return F.relu(tokens).reshape(b, h, w, c).permute(0, 3, 1, 2)


def shuffled(m: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.size()
    assert c % 4 == 0
    return x.view(b, 4, c // 4, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def attending(m: Any, x: torch.Tensor) -> torch.Tensor:
    """As timm's first vision transformers have it: the width of a head from that of the tokens."""
    b, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = m.qkv(tokens).reshape(b, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
    mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
    return x + mixed.transpose(1, 2).reshape(b, h * w, c).transpose(1, 2).reshape(b, c, h, w)


def resized(m: Any, x: torch.Tensor) -> torch.Tensor:
    _, _, height, width = x.shape
    return F.interpolate(x, (2 * height, 2 * width))


def asserted(m: Any, x: torch.Tensor) -> torch.Tensor:
    c = x.size(1)
    assert c > 0
    assert c
    assert 0 < c
    assert not c == 0
    assert c != None  # noqa: E711 - as code has it
    assert isinstance(c, int)
    assert isinstance(x.shape, torch.Size)
    assert len(x.shape) == 4
    return x


def grouped_by_number(m: Any, x: torch.Tensor, kind: str, dims: int) -> torch.Tensor:
    given = x.flatten(2) if dims == 1 else x.unsqueeze(2) if dims == 3 else x
    y = getattr(F, f"{kind}{dims}d")(given, getattr(m, f"points{dims}"), groups=x.shape[1])
    return y[..., None] if dims == 1 else y[:, :, 0] if dims == 3 else y


def in_plain_numbers(code: Code) -> Code:
    """Refuses a count, so that attributes are not watched."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        assert type(m.plain.num_groups) is int
        return code(m, x)

    return run


def in_parts(*parts: int) -> Code:
    """Split by parts of one number, each so many times smaller than it, and put together the other way round."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        c = x.shape[1]
        return torch.cat(x.split([c // part for part in parts], 1)[::-1], 1)

    return code


FOLLOWED: dict[str, Code] = {
    "split in halves": in_parts(2, 2),
    "split in quarters": in_parts(4, 4, 4, 4),
    "enlarged by a function": lambda m, x: F.conv_transpose2d(x, m.up.weight, m.up.bias, 2),
    "split in one": lambda m, x: x.split([x.shape[1]], 1)[0],
    "read and not used": resized,
    "squeeze and excitation": squeezed,
    "tokens and back": attended,
    "asserted to be there": asserted,
    "view whole": lambda m, x: x.view(x.shape[0], x.shape[1], -1).view(x.shape),
    "view beside a dimension of one": lambda m, x: x.view(2, -1, x.shape[1], 36).flatten(0, 1).unflatten(-1, (6, 6)),
    "view as a list": lambda m, x: x.reshape([x.size(0), x.size(1), 4, 9]).reshape(*x.shape),
    "torch.reshape": lambda m, x: torch.reshape(torch.reshape(x, (2, x.shape[1], 36)), x.shape),
    "view last": lambda m, x: x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).view(2, 6, 6, -1).permute(0, 3, 1, 2),
    "expand": lambda m, x: x.mean((2, 3), keepdim=True).expand(-1, x.shape[1], 6, 6) + x.mean(3, True).expand(x.shape),
    "expand, beside a half of others": lambda m, x: (
        x * x.mean((2, 3), True).expand(2, x.shape[1], m.other(m.x).shape[1] // 2, 6).mean((2, 3), True)
    ),
    "expand by -1": lambda m, x: x.mean((2, 3), keepdim=True).expand(2, -1, 6, 6) * x,
    "expand adds a dimension": lambda m, x: x.expand(3, -1, -1, -1, -1).sum(0),
    "view_as": lambda m, x: x.flatten(2).softmax(-1).view_as(x) * x,
    "reshape_as": lambda m, x: x.flatten(2).reshape_as(x.relu()),
    "expand_as": lambda m, x: x.mean((2, 3), keepdim=True).expand_as(x),
    "compared": lambda m, x: x.relu() if x.shape == x.tanh().shape else x,
    "compared with another layer": lambda m, x: x.relu() if x.shape == m.other(m.x).shape else x,
    "compared with a norm": lambda m, x: m.norm(x) if x.shape[1] == m.norm.num_features else x,
    "compared with a weight": lambda m, x: x.relu() if m.last.weight.shape[1] == x.shape[1] else x,
    "number of a layer": lambda m, x: x.view(2, m.first.out_channels, -1).view(2, m.last.in_channels, 6, 6),
    "number of a transposed layer": lambda m, x: m.up(x).view(2, m.up.out_channels, 12, 12),
    "number of a linear layer": lambda m, x: m.squeeze(x.mean((2, 3))).view(2, m.squeeze[2].out_features, 1, 1) * x,
    "number of a parameter": lambda m, x: x * m.gamma.view(1, len(x[0, 0]) // 6, -1, 1, 1)[:, 0],
    "parameter by an index": lambda m, x: x * (x.mean((2, 3)) * m.gamma[None])[..., None, None],
    "parameter by indices": lambda m, x: x * m.gamma[None, :, None, None],
    "parameter by a number": lambda m, x: x * m.gamma.view(1, x.shape[1], 1, 1),
    "kernel size": lambda m, x: x * m.first.weight.shape[2] * m.deep.weight.size(1),
    "as many groups": lambda m, x: F.conv2d(x, m.blur, padding=1, groups=x.shape[1]),
    **{
        f"as many groups, {kind}{dims}d": lambda m, x, kind=kind, dims=dims: grouped_by_number(m, x, kind, dims)
        for kind in ("conv", "conv_transpose")
        for dims in (1, 2, 3)
    },
    "a sum over space": lambda m, x: x / (x.shape[2] * x.shape[3]),
    "groups of a depthwise layer": lambda m, x: F.conv2d(x, m.blur, padding=1, groups=m.deep.groups) + m.deep(x),
    "code of a subclass": lambda m, x: m.grouped(x),
    "a norm in two groups": lambda m, x: m.plain(x),
    "a norm whose number of groups is no count": in_plain_numbers(lambda m, x: m.plain(x)),
    "depthwise layers of one weight": lambda m, x: m.twin(m.deep(x)),
    "pairs": lambda m, x: x.view(2, x.shape[1] // 2, 2, 6, 6).view(2, -1, 6, 6),
    "a shuffle": shuffled,
    "a shuffle in a shape put together": lambda m, x: (
        x.reshape((x.shape[0], 2, x.shape[1] // 2, *x.shape[2:])).transpose(1, 2).reshape(x.shape)
    ),
    "a shuffle of one group": lambda m, x: x.view(2, 1, x.shape[1] // 1, 6, 6).transpose(1, 2).reshape(x.shape),
    "heads": attending,
    "groups of a module's own number": lambda m, x: (
        x.view(x.shape[0], m.heads, -1, 6, 6).transpose(1, 2).reshape(2, x.shape[1], -1).unflatten(2, (6, 6))
    ),
    "as many in each of a module's own number": lambda m, x: (
        x.view(x.shape[0], m.heads, x.shape[1] // m.heads, 6, 6).transpose(1, 2).reshape(x.shape)
    ),
    "halves by a number": lambda m, x: torch.cat(x.split(x.shape[1] // 2, 1)[::-1], 1),
    "halves by a number, by name": lambda m, x: torch.cat(x.split(x.shape[1] // 2, dim=1), 1).relu(),
    "halves by slices": lambda m, x: torch.cat((x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]), 1),
    "three quarters and one": lambda m, x: torch.cat(
        (x[:, x.size(1) // 4 :, :3], x[:, : x.size(1) // 4, 3:]), 1
    ).relu(),
    "another layer's, in halves of these": lambda m, x: (
        x * m.squeeze(x.mean((2, 3))).reshape(x.shape[0], 2, x.shape[1] // 2).sum((1, 2))[:, None, None, None]
    ),
    "a shuffle in a shape with its name": lambda m, x: (
        x.reshape(shape=(2, 4, x.shape[1] // 4, 6, 6)).transpose(1, 2).reshape(x.shape)
    ),
    "halves in a larger batch": lambda m, x: x.view(-1, x.shape[1] // 2, 6, 6).view(2, -1, 6, 6),
    "pairs by names": lambda m, x: torch.reshape(input=x, shape=(2, x.shape[1] // 2, 2, 36)).view(2, -1, 6, 6),
    "can be divided": lambda m, x: x.relu() if x.shape[1] % 4 == 0 else x,
    "depthwise layers of one weight whose groups are no counts": in_plain_numbers(lambda m, x: m.twin(m.deep(x))),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(name: str) -> None:
    layer = exact(Net(FOLLOWED[name])).by_name["first"]
    assert layer.free.all() or name == "number of a parameter", layer.reason


PINNED: dict[str, Code] = {
    "split in a half and two quarters": in_parts(2, 4, 4),
    "split in as many parts as the first says, but others": in_parts(4, 2, 8, 8),
    "split in a half and a number": lambda m, x: torch.cat(x.split([x.shape[1] // 2, 4], 1)[::-1], 1),
    "bytes of its memory": lambda m, x: x * x.untyped_storage().nbytes(),
    "number of groups": lambda m, x: m.grouped(x) / m.grouped.num_groups,
    "groups of a norm's own": lambda m, x: m.written(x),
    "groups of a norm that takes plain numbers": lambda m, x: m.strict(x),
    "sections of which the last is smaller": lambda m, x: torch.cat(x.split(m.x.shape[1], 1), 1),
    "groups of a depthwise layer, divided by": lambda m, x: m.deep(x) / m.deep.groups,
    "spread by a tensor that tells nothing else": lambda m, x: x * torch.ones(1, 1, 1, 1).expand_as(x).sum(),
    "spread by a parameter": lambda m, x: x * m.one.expand_as(x).sum(),
    "viewed as a tensor": lambda m, x: x * torch.ones(x.numel()).view_as(x).mean(),
    "range": lambda m, x: x * len(range(x.shape[1])),
    "float before it": lambda m, x: x * (0.5 * x.shape[1]),
    "as many ones of its type": lambda m, x: x * x.new_ones(x.shape[1]).sum(),
    "power": lambda m, x: x * x.shape[1] ** -0.5,
    "base": lambda m, x: x * 2 ** x.shape[1],
    "square root": lambda m, x: x / math.sqrt(x.shape[1]),
    "logarithm": lambda m, x: x / math.log(x.shape[1]),
    "index": lambda m, x: x * list(range(20))[x.shape[1]],
    "slice": lambda m, x: x * sum(list(range(20))[: x.shape[1]]),
    "product": lambda m, x: x * math.prod(x.shape),
    "numel": lambda m, x: x / x.shape.numel(),
    "numpy": lambda m, x: x * float(np.prod(x.shape)),
    "numpy's memory": lambda m, x: x * np.zeros(x.shape[1]).sum() + x * len(np.ones(x.shape[1])),
    "key": lambda m, x: x * {8: 3}.get(x.shape[1], 5),
    "key by a text": lambda m, x: x * {"norm8": 3}.get(f"norm{x.shape[1]}", 5),
    "text": lambda m, x: x * len("%d" % x.shape[1]),  # noqa: UP031 - as code has it
    "int": lambda m, x: x * int(x.shape[1]),
    "divmod": lambda m, x: x * divmod(17, x.shape[1])[1],
    "round": lambda m, x: x * round(x.shape[1], -1),
    "bits": lambda m, x: x * x.shape[1].bit_length(),
    "branch": lambda m, x: x if x.shape[1] > 4 else -x,
    "equality": lambda m, x: x if x.shape[1] == 8 else -x,
    "other layer of another width": lambda m, x: -x if x.shape[1] == m.squeeze[0].out_features else x,
    "a layer of another width that runs": lambda m, x: (
        squeezed(m, x) * (-1 if x.shape[1] == m.squeeze[0].out_features else 1)
    ),
    "copied": lambda m, x: x * copy.copy(x.shape[1]) * copy.deepcopy(x.shape[1]),
    "sum of sizes": lambda m, x: x * sum(x.shape),
    "sizes added": lambda m, x: x * ((1, *x.shape) + x.shape)[2],
    "sizes repeated": lambda m, x: x * (x.shape * 2)[5],
    "a hash": lambda m, x: x * (hash(x.shape) % 7 + 1),
    "two thirds": lambda m, x: x * (x.shape[1] // 3),
    "half of them": lambda m, x: x * (x.shape[1] // 2),
    "a half that is asked for": lambda m, x: x if x.shape[1] // 2 else -x,
    "a half that is compared": lambda m, x: x if x.shape[1] // 2 > 0 else -x,
    "a half of a half": lambda m, x: x.view(2, 4, x.shape[1] // 2 // 2, 6, 6).transpose(1, 2).reshape(x.shape),
    "what is left of a half": lambda m, x: x * (x.shape[1] // 2 % 2 + 1),
    "what is left over": lambda m, x: x * (x.shape[1] % 3),
    "half as many groups": lambda m, x: F.group_norm(x, x.shape[1] // 2),
    "half of them, and others": lambda m, x: x.split((x.shape[1] // 2, 2, 2), 1)[0].repeat(1, 2, 1, 1),
    "half of another layer's": lambda m, x: torch.cat(x.split(m.squeeze(x.mean((2, 3))).shape[1] // 2, 1), 1),
    "half of them, and others, of another layer": lambda m, x: (
        x * m.other(m.x).split((x.shape[1] // 2, 4), 1)[0].mean(1, True)
    ),
    "half of them, of as many others": lambda m, x: (
        x * m.squeeze[0](x.mean((2, 3))).view(2, x.shape[1] // 2, 1, 1).mean(1, True)
    ),
    "half of a parameter": lambda m, x: x * m.gamma.view(2, x.shape[1] // 2).mean(),
    "one of a number": lambda m, x: x * x.mean().view(1, x.shape[1] // 8, 1, 1),
    "half of them, twice": lambda m, x: (lambda half: x.view(2, half, half, 18).view(x.shape))(x.shape[1] // 2),
    "half of them, for as many others, beside as many rows": lambda m, x: (
        x
        * m.squeeze[0](x.mean((2, 3))).view(2, -1, 1, 1).expand(2, x.shape[1] // 2, x.shape[1], 6).mean((1, 2, 3), True)
    ),
    "half as many rows in each": lambda m, x: x * x.split(x.shape[1] // 2, 2)[0].mean(2, True),
    "half of them, behind all of them": lambda m, x: x.view(2, x.shape[1], x.shape[1] // 2, 9).view(x.shape).relu(),
    "half of them, in the place of rows": lambda m, x: x.view(2, -1, x.shape[1] // 2, 9).view(2, -1, 6, 6),
    "half of them, by one": lambda m, x: x * x[:, x.shape[1] // 2][:, None],
    "a quarter in the middle": lambda m, x: x[:, x.shape[1] // 4 : x.shape[1] // 2].repeat(1, 4, 1, 1),
    "every other one of a half": lambda m, x: x[:, : x.shape[1] // 2 : 2].repeat(1, 4, 1, 1),
    "half as many rows": lambda m, x: x * x[:, :, : x.shape[1] // 2].mean(2, keepdim=True),
    "half of another layer's, by a slice": lambda m, x: x[:, : m.other(m.x).shape[1] // 2].repeat(1, 2, 1, 1),
    "as many rows": lambda m, x: x * x[:, :, : x.shape[1] - 4].mean(2, keepdim=True) * x[..., : x.shape[1]],
    "spread by as many as half of them": lambda m, x: (
        x * m.squeeze[0](x.mean((2, 3))).view(2, -1, 1, 1).expand(2, x.shape[1] // 2, 6, 6).mean(1, True)
    ),
    "spread by half of them": lambda m, x: x * x.mean(1, True).expand(2, x.shape[1] // 2, 6, 6).mean(1, True),
    "beside the channels": lambda m, x: x * torch.ones(x.shape[1], dtype=x.dtype).sum(),
    "a scale that is shared out among them": lambda m, x: x * m.gamma.softmax(-1).view(1, -1, 1, 1),
    "arange": lambda m, x: x * torch.arange(x.shape[1]).sum(),
    "chunks": lambda m, x: torch.stack(x.flatten(1).chunk(x.shape[1], 1)).sum(0).view(2, 1, 6, 6) + x,
    "in another place": lambda m, x: x.view(x.shape[1], -1, 6, 6).view(2, -1, 6, 6),
    "spread over": lambda m, x: x * x.mean((1, 2, 3), keepdim=True).expand(-1, x.shape[1], 6, 6),
    "spread along rows": lambda m, x: x * x.mean((2, 3), keepdim=True).expand(-1, -1, x.shape[1], 6)[:, :, :6],
    "groups": lambda m, x: F.group_norm(x, x.shape[1]),
    "a parameter viewed by their number, for itself": lambda m, x: x * m.gamma.view(1, x.shape[1], 1, 1).mean(),
    "groups of a layer without weights of its own": in_plain_numbers(lambda m, x: m.borrowing(m.deep(x))),
    "groups by another layer's number": lambda m, x: F.conv2d(x, m.quarter.weight, groups=m.squeeze[0].out_features),
    "groups the other way by another layer's number": lambda m, x: F.conv_transpose2d(
        x, m.quarter.weight, groups=m.squeeze[0].out_features
    ).relu(),
    "written out": lambda m, x: x.expand(2, 8, 6, 6),
    "a layer's number": lambda m, x: x / m.first.out_channels,
    "a reader's number": lambda m, x: x / m.last.in_channels,
    "a depthwise layer's number": lambda m, x: m.deep(x) / m.deep.in_channels,
    "a transposed layer's number": lambda m, x: m.up(x) / m.up.in_channels,
    "a norm's number": lambda m, x: m.norm(x) * m.norm.num_features,
    "a weight's length": lambda m, x: x * m.first.weight.shape[0] ** -0.5,
    "a weight's size": lambda m, x: x * m.last.weight.size(1),
    "a weight's numbers": lambda m, x: x / m.last.weight.numel(),
    "a bias's length": lambda m, x: x / len(m.first.bias),
    "the length of what was worked out": lambda m, x: x * m.turned.exp() / m.turned.exp().shape[1],
    "the length of a parameter's view": lambda m, x: x * m.gamma.view(1, -1, 1, 1) / m.gamma.view(1, -1, 1, 1).shape[1],
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned(name: str) -> None:
    """Code that computes with ``out_channels`` or ``weight.shape[0]`` came out wrong: a trace did not see it."""
    assert not exact(Net(PINNED[name])).by_name["first"].free.any() or "transposed" in name


def test_groups_are_as_many_as_others_and_channels_are_the_same() -> None:
    """Where a view has the number of others: of groups it tells no more than that."""
    graph = exact(Net(lambda m, x: x.view(2, m.squeeze[0](m.other(m.x).mean((2, 3))).shape[1], 2, 6, 6).flatten(1, 2)))
    first, others = graph.by_name["first"], graph.by_name["squeeze.0"]
    assert first.free.all()
    assert others.free.all()
    assert not np.intersect1d(first.groups, others.groups).size
    graph = exact(Net(lambda m, x: x.view(2, m.other(m.x).shape[1], 6, 6)))
    first, others = graph.by_name["first"], graph.by_name["other"]
    assert first.free.all()
    np.testing.assert_array_equal(first.groups, others.groups)


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: x.view(-1, 4, 6, 6).view(2, 8, 6, 6),
        lambda m, x: x.view(2, 8, -1, 6).view(2, 8, 6, 6),
        lambda m, x: x.repeat(3, 1, 1, 1).view(4, -1, 6, 6)[:, :8],
    ],
    ids=["more images", "rows", "images that are no multiple"],
)
def test_what_is_left_over_is_not_always_the_channels(code: Code) -> None:
    layer = exact(Net(code)).by_name["first"]
    assert layer.reason == "view in the network: the channel count is written out in the new shape"


def test_random_numbers_for_every_channel_read_their_number_and_are_no_operator_without_a_rule() -> None:
    graph = exact(Net(lambda m, x: x * (1 + 0 * torch.rand_like(x).sum())))
    assert graph.barriers == ()
    assert "reads their number" in graph.by_name["first"].reason


def test_a_part_of_more_channels_than_are_viewed_is_refused_where_they_are() -> None:
    layer = trace(Net(PINNED["half of them, of as many others"]), X).by_name["squeeze.0"]
    assert "a part of another number of channels takes their place" in layer.reason


def test_a_depthwise_layer_with_a_weight_of_its_own_needs_no_count() -> None:
    model = Net(in_plain_numbers(lambda m, x: m.alone(x)))
    model.alone = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH).double()
    layer = exact(model).by_name["first"]
    assert layer.free.all(), layer.reason


def test_a_number_that_is_handed_to_what_is_not_followed_pins_what_it_counts() -> None:
    graph = exact(Net(lambda m, x: x.view(m.other(m.x).shape[1], 2, 6, 6).view(2, -1, 6, 6)))
    assert not graph.by_name["first"].free.any()
    assert not graph.by_name["other"].free.any()


def test_a_layer_of_one_channel_has_one_group() -> None:
    """A depthwise layer has as many as channels, of which this has one."""
    model = nn.Sequential(nn.Conv2d(1, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, 2, 1)).double()
    graph = trace(model, X[:, :1])
    assert graph.barriers == ()
    assert graph.by_name["0"].free.all()


class Pair(nn.Module):
    """Two channels, a scale of them and a layer with as many groups."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.first, self.deep, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 1)
        self.gamma, self.code = nn.Parameter(torch.rand(1, 2, 1, 1)), code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.code(self, self.deep(self.first(x))))


@pytest.mark.parametrize(
    ("code", "free"),
    [
        (lambda m, x: x * m.gamma.exp(), True),
        (lambda m, x: x * m.gamma.exp() / m.gamma.exp().shape[1], False),
        (lambda m, x: x / m.deep.groups, False),
    ],
)
def test_a_number_of_two_channels_is_one_too(code: Code, free: bool) -> None:
    assert bool(trace(Pair(code).double(), X).by_name["first"].free.all()) is free


def test_a_transposed_layers_number_of_channels() -> None:
    layer = exact(Net(lambda m, x: m.up(x) / m.up.out_channels)).by_name["up"]
    assert not layer.free.any()
    assert "reads their number" in layer.reason


HOLD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "conv": (lambda: nn.Conv2d(WIDTH, 6, 1), "in_channels out_channels"),
    "conv in groups": (lambda: nn.Conv2d(WIDTH, 6, 1, groups=2), "in_channels out_channels"),
    "depthwise": (lambda: nn.Conv2d(WIDTH, WIDTH, 1, groups=WIDTH), "in_channels out_channels groups"),
    "depthwise, twice": (lambda: nn.Conv2d(WIDTH, 2 * WIDTH, 1, groups=WIDTH), "in_channels out_channels groups"),
    "transposed": (lambda: nn.ConvTranspose2d(WIDTH, 6, 1), "in_channels out_channels"),
    "transposed without a bias": (lambda: nn.ConvTranspose2d(WIDTH, 6, 1, bias=False), "in_channels out_channels"),
    "transposed in groups": (lambda: nn.ConvTranspose2d(WIDTH, 6, 1, groups=2), "in_channels out_channels"),
    "transposed, depthwise": (
        lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 1, groups=WIDTH),
        "in_channels out_channels groups",
    ),
    "transposed, depthwise, without a bias": (
        lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 1, groups=WIDTH, bias=False),
        "in_channels out_channels groups",
    ),
    "linear": (lambda: nn.Linear(WIDTH, 6), "in_features out_features"),
    "norm": (lambda: nn.BatchNorm2d(WIDTH), "num_features"),
    "norm without weights": (lambda: nn.InstanceNorm2d(WIDTH, track_running_stats=True), "num_features"),
    "norm of groups": (lambda: nn.GroupNorm(4, WIDTH), "num_groups num_channels"),
    "slopes": (lambda: nn.PReLU(WIDTH), "num_parameters"),
}


@pytest.mark.parametrize(("name", "number"), [(name, each) for name in HOLD for each in HOLD[name][1].split()])
def test_a_number_that_a_layer_of_torch_holds_is_that_of_its_channels(name: str, number: str) -> None:
    """Code that computes with it is exact, whatever else is removed."""

    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.last = nn.Conv2d(3, WIDTH, 1), HOLD[name][0](), nn.LazyConv2d(2, 1)
            self.double()(X)
            randomise(self, 0)
            self.double().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            y = self.layer(y.movedim(1, -1)).movedim(-1, 1) if name == "linear" else self.layer(y)
            return self.last(y / getattr(self.layer, number))

    graph = exact(Divides())
    reads, makes = graph.by_name["first"], graph.by_name.get("layer")
    counted = makes if makes is not None and number.startswith("out") else reads
    assert not counted.free.any()
    assert makes is None or makes is counted or makes.free.any()
    assert reads is counted or reads.free.any()


def test_a_transposed_depthwise_layer_holds_the_number_of_its_outputs() -> None:
    class Handed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, WIDTH, 1), nn.Conv1d(2 * WIDTH, 2, 1)
            self.layer = nn.ConvTranspose2d(WIDTH, 2 * WIDTH, 1, groups=WIDTH)
            randomise(self, 0)
            self.double().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.layer(self.first(x)).view(len(x), self.layer.out_channels, 36))

    layer = exact(Handed()).by_name["first"]
    assert layer.free.all(), layer.reason


def test_the_number_of_a_norm_whose_statistics_others_use_is_that_of_its_channels() -> None:
    class Borrows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 2, 1)
            randomise(self, 0)
            self.norm = nn.BatchNorm2d(WIDTH, affine=False)
            self.double().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x).relu() * self.norm.running_mean.view(1, -1, 1, 1)
            return self.last(y / self.norm.num_features)

    assert not exact(Borrows()).by_name["first"].free.any()


def test_what_is_compared_stays_equal() -> None:
    graph = exact(Net(FOLLOWED["compared with another layer"]))
    assert [len(b.sections) for b in graph.balances] == [2]
    assert "compares their numbers" in graph.balances[0].reason


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm2d(WIDTH, affine=True),
        nn.InstanceNorm2d(WIDTH),
        nn.InstanceNorm2d(WIDTH, track_running_stats=True),
        nn.InstanceNorm2d(WIDTH, affine=True, track_running_stats=True),
        nn.BatchNorm2d(WIDTH, affine=False),
        nn.BatchNorm2d(WIDTH, affine=False, track_running_stats=False),
        nn.SyncBatchNorm(WIDTH),
    ],
)
def test_norms_that_check_their_width(norm: nn.Module, recwarn: pytest.WarningsRecorder) -> None:
    """``InstanceNorm2d`` asks for ``num_features`` channels: its own check pinned them."""
    model = Net(lambda m, x: m.norm(x))
    model.norm = norm.double().eval()
    graph = exact(model)
    assert graph.by_name["first"].free.all(), graph.by_name["first"].reason
    plan = random_plan(graph, 0)
    small = compact(model, plan, graph)
    assert small.norm.num_features == small.first.out_channels < WIDTH
    assert not [w for w in recwarn if "does not match" in str(w.message)]


def test_rows_of_a_map_beside_each_other_are_read_channel_by_channel() -> None:
    """``view(b, -1, w)``: each channel lies there once for every row."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, WIDTH, 1), nn.Conv1d(6 * WIDTH, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(F.relu(self.first(x)).view(x.shape[0], -1, 6))

    assert exact(Rows().double().eval()).by_name["first"].free.all()


def test_a_hook_sees_the_number_of_its_layer() -> None:
    model = Net(lambda m, x: x)
    model.first.register_forward_hook(lambda module, given, out: out / module.out_channels)
    assert not exact(model).by_name["first"].free.any()


def test_a_number_that_is_returned() -> None:
    class Returns(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = self.first(x)
            return self.last(y), y.shape[1]

    assert not exact(Returns(lambda m, x: x)).by_name["first"].free.any()


def test_a_number_that_is_kept_and_used_in_the_next_pass() -> None:
    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        scale, m.scale = m.scale, x.shape[1]
        return x * scale

    assert not trace(Net(code), X).by_name["first"].free.any()


def test_a_number_that_training_alone_reads_when_all_calls_are_made() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 2, 1)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.first(x)
            out = self.last(y)
            return [out] * len(range(y.shape[1])) if self.training else out

    assert not trace(Last().double(), X).by_name["first"].free.any()


def test_what_is_known_of_counts_can_be_gone_back_to() -> None:
    held = Held("module", (), "width", 8)
    known = Deferred([(held, "used")], [(held, held, "equal")], [(held, held, "tied")], True)
    kept = known.copy()
    assert kept == known
    for facts in (known.used, known.equal, known.tied):
        facts.clear()
    assert (len(kept.used), len(kept.equal), len(kept.tied)) == (1, 1, 1)


def test_numbers_of_the_networks_input_bind_nothing() -> None:
    assert exact(Net(lambda m, x: x * m.x.shape[1])).by_name["first"].free.all()


# ---- the count by itself --------------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def count(told: list[str]) -> Count:
    reader = Reader(lambda source, module: told.append("used"), lambda a, b, module: told.append("same"))
    return Count(8, np.arange(8), reader, "module")


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (lambda c: c + 1, 9),
        (lambda c: 1 + c, 9),
        (lambda c: c - 1, 7),
        (lambda c: 1 - c, -7),
        (lambda c: c * 2, 16),
        (lambda c: 0.5 * c, 4.0),
        (lambda c: c / 2, 4.0),
        (lambda c: 2 / c, 0.25),
        (lambda c: c // 3, 2),
        (lambda c: 17 // c, 2),
        (lambda c: c % 3, 2),
        (lambda c: 17 % c, 1),
        (lambda c: divmod(c, 3), (2, 2)),
        (lambda c: divmod(17, c), (2, 1)),
        (lambda c: c**2, 64),
        (lambda c: 2**c, 256),
        (lambda c: pow(c, 2, 5), 4),
        (lambda c: c << 1, 16),
        (lambda c: 1 << c, 256),
        (lambda c: c >> 1, 4),
        (lambda c: 512 >> c, 2),
        (lambda c: c & 12, 8),
        (lambda c: c | 1, 9),
        (lambda c: c ^ 9, 1),
        (lambda c: -c, -8),
        (lambda c: +c, 8),
        (lambda c: ~c, -9),
        (lambda c: abs(c), 8),
        (lambda c: int(c), 8),
        (lambda c: float(c), 8.0),
        (lambda c: complex(c), 8 + 0j),
        (lambda c: str(c), "8"),
        (lambda c: repr(c), "8"),
        (lambda c: f"{c:03d}", "008"),
        (lambda c: round(c), 8),
        (lambda c: math.trunc(c), 8),
        (lambda c: math.floor(c), 8),
        (lambda c: math.ceil(c), 8),
        (lambda c: hash(c), hash(8)),
        (lambda c: c.real, 8),
        (lambda c: c < 9, True),
        (lambda c: c > 1, True),
        (lambda c: c == 1, False),
        (lambda c: c <= 7, False),
        (lambda c: c > 7, True),
        (lambda c: c >= 9, False),
        (lambda c: c == 8, True),
        (lambda c: c != 8, False),
        (lambda c: 8 == c, True),
        (lambda c: c == "8", False),
        (lambda c: c != (8,), True),
        (lambda c: 9 > c, True),
        (lambda c: copy.copy(c) + 1, 9),
        (lambda c: copy.deepcopy(c) + 1, 9),
    ],
)
def test_a_count_computes_as_its_number_does_and_says_so(
    count: Count, told: list[str], operation: Callable[[Any], Any], result: object
) -> None:
    found = operation(count)
    assert found == result
    assert type(found) is type(result)
    assert set(told) == {"used"}


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (lambda c: bool(c), True),
        (lambda c: c == 0, False),
        (lambda c: c != 0, True),
        (lambda c: c > 0, True),
        (lambda c: c >= 0, True),
        (lambda c: c < 0, False),
        (lambda c: c <= 0, False),
        (lambda c: 0 < c, True),
        (lambda c: c == -1, False),
        (lambda c: c == None, False),  # noqa: E711 - what is asked
        (lambda c: isinstance(c, int), True),
        (lambda c: hasattr(c, "shape"), False),
    ],
)
def test_what_holds_of_every_number_of_channels_is_free_to_ask(
    count: Count, told: list[str], operation: Callable[[Any], Any], result: object
) -> None:
    assert operation(count) is result
    assert told == []


def test_a_number_asked_for_in_c_is_used_unless_it_was_torch_that_read_a_call(count: Count, told: list[str]) -> None:
    assert len(range(count)) == 8
    assert told == []
    count.reader.settle([count], "elsewhere")
    assert told == ["used"]
    count.reader.peek(count, "here")
    count.reader.settle([count], "here")
    assert told == ["used"]
    count.reader.peek(count, "here")
    count.reader.settle([], "here")
    assert told == ["used", "used"]
    count.reader.settle()
    assert told == ["used", "used"]


def test_shapes(count: Count, told: list[str]) -> None:
    shape = WatchedSize((2, count, 4, 4))
    assert shape[2:] == (4, 4)
    assert type(shape[2:]) is torch.Size
    assert type(shape[:2]) is WatchedSize
    assert shape[1] is count
    assert shape != (3, 8, 4, 4)
    assert shape != (2, 8, 4, 5)
    assert shape != (2, 8)
    assert shape != "text"
    assert shape == WatchedSize((2, Count(8, np.arange(8), count.reader, ""), 4, 4))
    assert told == ["same"]
    assert shape == (2, 8, 4, 4)
    assert (shape + (1,)).numel() == 256
    assert hash(shape) == hash((2, 8, 4, 4))
    assert set(told[1:]) == {"used"}


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        *(((2, 3), (2, 3)), (((2, 3),), (2, 3)), (([2, 3],), (2, 3)), ((5,), (5,)), ((), ()), (((),), ())),
        *(((torch.float64,), ()), ((2, torch.float64), ()), (([2, 3], 5), ()), ((torch.Size([4, -1]),), (4, -1))),
    ],
)
def test_a_shape_is_whole_numbers_in_a_list_or_not(given: tuple[Any, ...], sizes: tuple[int, ...]) -> None:
    assert sizes_of(given) == sizes


def test_eager_shapes_hand_out_plain_numbers(count: Count, told: list[str]) -> None:
    count.reader.eager = True
    shape = WatchedSize((2, count, 4, 4))
    assert shape[2] == 4
    assert told == []
    assert type(shape[1]) is int
    assert [type(size) for size in shape] == [int] * 4
    assert [type(size) for size in shape[1:]] == [int] * 3
    assert told == ["used"] * 3


def test_after_a_trace_nothing_is_kept_of_who_asks(count: Count, told: list[str]) -> None:
    assert len(range(count)) == 8
    count.reader.end()
    assert count.reader._peeks == []
    assert [*range(count)] == [*range(8)]
    count.use()
    assert count.reader._peeks == []
    assert told == []
