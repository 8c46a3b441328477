"""Inputs whose channels lie elsewhere than in dimension 1, and what is made of the input alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from seqprune import compact, mask, trace, verify
from seqprune.testing.networks import random_plan, randomise

Code = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Two layers, and code that calls them."""

    def __init__(self, code: Code, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.code = one, two, code
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self, x)


def images() -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)


def tokens() -> tuple[nn.Module, nn.Module]:
    return nn.Linear(3, 8), nn.Linear(8, 2)


def free(code: Code, layers: tuple[nn.Module, nn.Module], *shape: int) -> None:
    """All channels between both layers, and what is pruned is the same on other inputs, too."""
    net, x = Net(code, *layers), torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = trace(net, x)
    assert graph.by_name["one"].free.all(), graph.by_name["one"].reason
    plan = random_plan(graph, 1)
    masked, small = mask(net, plan, graph), compact(net, plan, graph)
    verify(masked, small, x)
    torch.testing.assert_close(small(3 * x - 1), masked(3 * x - 1))


PLACES: dict[str, tuple[Code, Callable[[], tuple[nn.Module, nn.Module]], tuple[int, ...]]] = {
    "channels last": (lambda m, x: m.two(m.one(x.permute(0, 3, 1, 2)).relu()), images, (2, 6, 5, 3)),
    "tokens": (lambda m, x: m.two(m.one(x).relu()), tokens, (2, 5, 3)),
    "one token": (lambda m, x: m.two(m.one(x).relu()), tokens, (1, 1, 3)),
    "images one by one": (lambda m, x: torch.stack([m.two(m.one(i[None])) for i in x]), images, (2, 3, 6, 5)),
    "an image alone": (lambda m, x: m.two(m.one(x[None]).relu()), images, (3, 6, 5)),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_first_layer_is_one_wherever_the_inputs_channels_lie(name: str) -> None:
    """Networks that take tokens, or images with the channels last, had one layer fewer, without a word."""
    code, layers, shape = PLACES[name]
    free(code, layers(), *shape)


def test_images_of_one_channel() -> None:
    """A layer with one input has as many groups as inputs, and is no depthwise one."""
    free(lambda m, x: m.two(m.one(x).relu()), (nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1)), 2, 1, 6, 5)


GATES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a channel": lambda x: x[:, :1],
    "a map of truth": lambda x: x.mean(1, keepdim=True) > 0,
    "a number of each": lambda x: x.flatten(1).std(1)[:, None, None, None],
    "an index": lambda x: x.argmax(1, keepdim=True),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_of_the_input_alone(name: str) -> None:
    """An image's own mask, multiplied with what a layer makes, pinned all of it."""
    free(lambda m, x: m.two(m.one(x) * GATES[name](x)), images(), 2, 3, 6, 5)
    free(lambda m, x: m.two(m.one(x) / (GATES[name](x) + 2)), images(), 2, 3, 6, 5)


def test_a_gate_of_rows_alone() -> None:
    free(lambda m, x: m.two(m.one(x) * x), (nn.Linear(1, 8), nn.Linear(8, 2)), 4, 1)


JOINED: dict[str, Code] = {
    "as many channels": lambda m, x: m.two(m.one(x) * x[:, :1].expand(-1, 8, -1, -1).sort(1)[0]),
    "a number for each": lambda m, x: m.two(m.one(x) * (torch.linspace(0, 1, 8)[:, None, None] * x[:, :1].exp2())),
    "divided": lambda m, x: m.two(m.one(x) / x[:, :1].expand(-1, 8, -1, -1).sort(1)[0].exp()),
    "a dividend": lambda m, x: m.two(x[:, :1] / m.one(x).exp()),
    "other dimensions": lambda m, x: m.two(m.one(x) * x[0, 0, :, :, None].exp2()),
}


@pytest.mark.parametrize("name", JOINED)
def test_what_the_input_alone_makes_for_every_channel_pins_them(name: str) -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = trace(Net(JOINED[name], *images()), x).by_name["one"]
    assert not layer.free.any()
    assert layer.reason
