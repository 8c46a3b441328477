"""Operators that halve, shuffle or turn round maps, or look for their largest value: followed, not pinned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.graph import ChannelGraph
from seqprune.testing.networks import random_plan, randomise

WIDTH = 16
X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
Call = Callable[[torch.Tensor], torch.Tensor]


class Between(nn.Module):
    def __init__(self, between: Call, reads: int) -> None:
        super().__init__()
        self.first, self.between, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), between, nn.Conv2d(reads, 2, 1)
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.between(self.first(x))
        return self.last(y if y.dim() == 4 else y[..., None, None] if y.dim() == 2 else y[..., None])


def exact(between: Call, reads: int) -> ChannelGraph:
    model = Between(between, reads)
    graph = trace(model, X)
    for seed in range(4):
        plan = random_plan(graph, seed)
        verify(mask(model, plan, graph), compact(model, plan, graph), X)
    return graph


@pytest.mark.parametrize(
    ("between", "reads", "groups"),
    [
        (F.glu, WIDTH, WIDTH),  # the last dimension, which is none of channels
        (lambda x: F.glu(x, 1), WIDTH // 2, WIDTH // 2),
        (lambda x: F.glu(x, dim=-3), WIDTH // 2, WIDTH // 2),
        (nn.GLU(1), WIDTH // 2, WIDTH // 2),
        (lambda x: F.pixel_shuffle(x, 2), WIDTH // 4, WIDTH // 4),
        (nn.PixelShuffle(4), 1, 1),
        (lambda x: F.pixel_unshuffle(x, 2), 4 * WIDTH, WIDTH),
        (nn.PixelUnshuffle(3), 9 * WIDTH, WIDTH),
        (lambda x: x.flip(2, 3), WIDTH, WIDTH),
        (lambda x: torch.flip(x, [-1]), WIDTH, WIDTH),
        (torch.fliplr, WIDTH, 0),  # of four dimensions the channels
        (lambda x: x.roll(1, 2), WIDTH, WIDTH),
        (lambda x: torch.roll(x, shifts=(1, -2), dims=(2, 3)), WIDTH, WIDTH),
        (lambda x: x.max(2).values, WIDTH, WIDTH),
        (lambda x: x.max(dim=-1, keepdim=True)[0], WIDTH, WIDTH),
        (lambda x: torch.min(x, 3)[0].max(2)[0], WIDTH, WIDTH),
        (lambda x: x.max(2)[1].double(), WIDTH, 0),  # places, which count
        (lambda x: torch.max(x, x.relu()), WIDTH, WIDTH),
        (lambda x: torch.max(x, other=x.relu()), WIDTH, WIDTH),
        (lambda x: x.amax((2, 3)), WIDTH, WIDTH),
    ],
)
def test_channels_are_followed(between: Call, reads: int, groups: int) -> None:
    graph = exact(between, reads)
    layer = graph.by_name["first"]
    assert len(set(layer.groups[layer.free])) == groups


@pytest.mark.parametrize(
    ("between", "reads"),
    [
        (lambda x: x.flip(1), WIDTH),
        (lambda x: x.flip(0, 1), WIDTH),
        (lambda x: x.roll(1, 1), WIDTH),
        (lambda x: x.roll(3), WIDTH),  # over everything
        (lambda x: x.max(1, keepdim=True)[0].expand(-1, 4, -1, -1), 4),
        (lambda x: x.max().expand(2, 4, 6, 6), 4),
        (lambda x: F.pixel_shuffle(x.transpose(1, 2)[..., :4, :], 1).transpose(1, 2)[:, :4], 4),
    ],
)
def test_what_mixes_channels_is_not(between: Call, reads: int) -> None:
    graph = exact(between, reads)
    assert not graph.by_name["first"].free.any()


def test_what_a_pixel_shuffle_makes_one_of_leaves_together() -> None:
    """Of channel 1 behind it, channels 4 to 7 before."""
    model = Between(lambda x: F.pixel_shuffle(x, 2), WIDTH // 4)
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"first": [each for each in range(WIDTH) if each != 5]})
    assert plan.keep["first"] == (0, 1, 2, 3, *range(8, WIDTH))
