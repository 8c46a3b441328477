"""Where channels are after a change of shape: every way to write it is followed to the right dimension, or pins.

Nothing here says where: a tensor whose values are its channels' numbers shows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.testing.networks import randomise

Way = Callable[[torch.Tensor], torch.Tensor]
SHAPE = (2, 4, 3, 5)
X = torch.randn(2, 3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def place_of(between: Way) -> int:
    """The dimension along which the channels lie: the only one along which a tensor of their numbers changes."""
    made = between(torch.arange(1.0, 5.0).view(1, 4, 1, 1).expand(SHAPE).clone())
    (place,) = (dim for dim in range(made.dim()) if made.shape[dim] == 4 and (made.diff(dim=dim) != 0).any())
    return place


class Between(nn.Module):
    """A layer, a change of shape, and a layer that reads the channels wherever they are."""

    def __init__(self, between: Way, place: int) -> None:
        super().__init__()
        self.first, self.last, self.gate = nn.Conv2d(3, 4, 1), nn.Conv1d(4, 2, 1), nn.Conv2d(4, 1, 1)
        self.between, self.place = between, (place,)
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.between(self.first(x))
        y = y.movedim(self.place[0], 0)
        return self.last(y.flatten(1)[None] if y.dim() > 1 else y[None, :, None])


def exact(between: Way, place: int) -> None:
    model = Between(between, place)
    graph = trace(model, X)
    assert graph.by_name["first"].free.all(), graph.by_name["first"].reason
    plan = PrunePlan.from_keep(graph, {"first": [1, 3]})
    small = compact(model, plan, graph)
    assert small.last.in_channels == 2
    verify(mask(model, plan, graph), small, X)


SQUEEZED: list[Way] = [
    *(lambda x, at=at: x.unsqueeze(at) for at in (-5, -4, -3, 0, 1, 2, 4)),
    *(lambda x, at=at: x.unsqueeze(at).squeeze(at) for at in (-5, -4, -3, 0, 1, 2)),
    *(lambda x, at=at: x[:, :, :1].squeeze(at) for at in (0, 2, 3, -1, -2, -4)),
    lambda x: x[:1, :, :1, :1].squeeze((0, 3)),
    lambda x: x[:1, :, :1].squeeze((-2, 0)),
    lambda x: x[None].squeeze((0, 1, 3)),
]
APART: list[Way] = [
    *(lambda x, at=at: x.unbind(at)[1] for at in (0, 2, 3, -1, -2, -4)),
    lambda x: x.transpose(1, 3).unbind(1)[2],
    lambda x: x.unbind()[0],
    *(lambda x, at=at: x.chunk(2, at)[1] for at in (0, 2, 3, -1)),
    lambda x: x.chunk(2)[0],
    *(lambda x, at=at: x.split(2, at)[-1] for at in (0, 2, -1)),
    lambda x: x.split([1, 4], 3)[1],
    lambda x: x.split(1)[1],
]
TOGETHER: list[Way] = [
    *(lambda x, at=at: torch.stack([x, x.relu(), x], at) for at in (-5, -4, -3, 0, 1, 2)),
    lambda x: torch.stack([x, x]),
    *(lambda x, at=at: torch.cat([x, x.abs()], at) for at in (0, 2, 3, -1)),
    lambda x: torch.cat((x, x)),
]
ORDERED: list[Way] = [
    *(lambda x, order=order: x.permute(order) for order in list(itertools.permutations(range(4)))[1::3]),
    *(lambda x, pair=pair: x.transpose(*pair) for pair in itertools.product((1, -3), (0, -1))),
    lambda x: x.permute(0, 2, 3, 1).permute(0, -1, 1, 2),
    lambda x: x.movedim(1, -1),
    lambda x: x.movedim(3, 0),
]
REDUCED: list[Way] = [
    *(
        lambda x, how=(name, dims, keep): getattr(x, how[0])(how[1], keepdim=how[2])
        for name, dims in (("mean", 0), ("mean", 3), ("sum", -2), ("sum", (0, 2)), ("amax", (-1, -2)), ("amax", 0))
        for keep in (True, False)
    ),
    lambda x: x.flatten(2),
    lambda x: x.flatten(-2),
    lambda x: x.permute(0, 2, 3, 1).flatten(0, 2),
    lambda x: x.permute(1, 0, 2, 3).flatten(1),
    lambda x: x.flatten(2).view(*x.shape[:2], *x.shape[2:]),
    lambda x: x.unflatten(0, (1, 2)),
    lambda x: x.unflatten(3, (1, -1, 5)),
]
BROADCAST: list[Way] = [
    lambda x: x + x.mean(0),
    lambda x: x.mean((0, 2), keepdim=True)[0] * x,
    lambda x: x * x.amax((0, 2, 3), keepdim=True),
    lambda x: x[None] + x.mean((3,), keepdim=True),
    lambda x: x[:1, :, :1].expand(3, -1, 2, -1),
    lambda x: x[None].expand(3, -1, -1, -1, -1),
    lambda x: x.unsqueeze(2).expand(-1, -1, 7, -1, -1),
    lambda x: x.permute(0, 2, 3, 1) * torch.ones((), dtype=x.dtype),
]


@pytest.mark.parametrize("ways", [SQUEEZED, APART, TOGETHER, ORDERED, REDUCED, BROADCAST])
def test_channels_are_found_wherever_a_change_of_shape_puts_them(ways: list[Way]) -> None:
    for at, way in enumerate(ways):
        try:
            exact(way, place_of(way))
        except Exception as error:
            raise AssertionError(f"way {at}: {error}") from error


WHOLE = slice(None)


@pytest.mark.parametrize(
    ("images", "rows", "columns"),
    [(WHOLE, slice(0, 2), 1), (-1, WHOLE, slice(None, None, 2)), (slice(1, None), 0, WHOLE), (0, -1, 2)],
)
def test_every_mixture_of_slices_numbers_new_dimensions_and_dots(images: object, rows: object, columns: object) -> None:
    parts = (images, WHOLE, rows, columns)
    keys = [parts[:3], parts[:2], *((*parts[:at], None, *parts[at:]) for at in range(5)), (*parts, ...)]
    keys += [(images, ..., columns), (images, WHOLE, ..., columns), (..., rows, columns), (None, ..., columns, None)]
    keys += [
        (..., None, WHOLE, rows, columns),
        (images, ..., WHOLE, rows, columns),
        (images, ..., None, WHOLE, rows, columns),
    ]
    for key in keys:
        way: Way = lambda x, key=key: x[key]  # type: ignore[misc]  # noqa: E731
        exact(way, place_of(way))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: x.squeeze(1), "may drop the channels"),
        (lambda x: x[:1, :, :1].squeeze((0, -3)), "may drop the channels"),
        (lambda x: torch.stack(x.unbind(1), 1), "takes the channels apart one by one"),
        (lambda x: torch.stack(x.unbind(-3), 1), "takes the channels apart one by one"),
        (lambda x: torch.cat(x.chunk(3, 1), 1), "chunks of different sizes"),
        (lambda x: torch.cat([x, torch.ones(SHAPE, dtype=x.dtype)], 2)[:, :, :3], "lies beside channels"),
        (lambda x: torch.stack([x, torch.ones(SHAPE, dtype=x.dtype)], 2)[:, :, 0], "lies beside channels"),
    ],
)
def test_what_may_lose_the_channels_pins_them(between: Way, reason: str) -> None:
    graph = trace(Between(between, place_of(between)), X)
    layer = graph.by_name["first"]
    assert not layer.free.any()
    assert reason in layer.reason


def test_what_drops_dimensions_by_their_size_keeps_two_channels() -> None:
    """As ``pool(x).squeeze()``, which of one channel left would drop that as well; all of them stayed."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), Squeezed(), nn.Linear(6, 5), nn.ReLU()),
        nn.Linear(5, 2),
    )
    model = model.double().eval()
    for given in (X[:1], X.expand(2, -1, -1, -1)):
        graph = trace(model, given)
        layer = graph.by_name["0"]
        assert layer.free.tolist() == [False] * 2 + [True] * 4
        assert "two channels stay" in layer.reason
        plan = PrunePlan.from_keep(graph, {"0": [0, 1], "4": [3]})
        small = compact(model, plan, graph)
        verify(mask(model, plan, graph), small, given)
    one = nn.Sequential(nn.Conv2d(3, 1, 1), Squeezed(), nn.Linear(5, 2)).double()
    assert "drops the channels" in trace(one, X).by_name["0"].reason


class Squeezed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.squeeze()


class Gated(Between):
    """One channel that is spread over all others, and one for which they are made equal."""

    def __init__(self, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__(lambda x: x, 1)
        self.join = join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(F.relu(self.join(y, self.gate(y))).flatten(2))


@pytest.mark.parametrize(
    ("join", "kept"),
    [
        (torch.mul, True),
        (lambda x, gate: gate * x, True),
        (lambda x, gate: x + gate * 0.5, False),
        (lambda x, gate: gate.sigmoid() * x, True),
        (lambda x, gate: x.cos() * gate, False),
        (lambda x, gate: x - gate, False),
    ],
)
def test_one_channel_spread_over_all_others(
    join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], kept: bool
) -> None:
    """A product with a removed channel stays zero; a sum is the other's value, which its readers would miss."""
    model = Gated(join)
    graph = trace(model, X)
    assert not graph.by_name["gate"].free.any()
    assert graph.by_name["first"].free.all() == kept
    if kept:
        plan = PrunePlan.from_keep(graph, {"first": [1, 3]})
        verify(mask(model, plan, graph), compact(model, plan, graph), X)
    else:
        assert not graph.by_name["first"].free.any()


def test_one_channel_that_a_product_or_a_constant_spreads() -> None:
    model = Gated(lambda x, gate: torch.einsum("bchw,bchw->bchw", x, gate))
    assert "spreads one channel over many" in trace(model, X).by_name["first"].reason
    model = Gated(lambda x, gate: x * (gate * torch.ones(4, 1, 1, dtype=x.dtype)))
    assert "broadcasts one channel over many" in trace(model, X).by_name["gate"].reason


ALL_OF: list[Way] = [
    *(
        lambda x, cut=cut: x[:, cut]
        for cut in (slice(4), slice(0, None), slice(0, 99), slice(-4, None), slice(-9, 4, 1))
    ),
    lambda x: x[:, :8, 1:],
    lambda x: x[..., :4, :, :2],
]


@pytest.mark.parametrize("at", range(len(ALL_OF)))
def test_a_slice_of_all_channels_takes_all_that_stay(at: int) -> None:
    """GhostNet cuts what it made to the number it was asked for, which it mostly is already."""
    exact(ALL_OF[at], place_of(ALL_OF[at]))


TURNED: list[Way] = [
    *(
        lambda x: x.mT,
        lambda x: x.mH,
        lambda x: x.adjoint(),
        lambda x: x.data,
        lambda x: x[0, :, 0].T,
        lambda x: x[0, :, 0].t(),
    ),
    *(
        lambda x: x[0, :, 0].H,
        lambda x: x[0, :, 0, 0].t(),
        lambda x: x[0, :, 0].mT,
        lambda x: torch.adjoint(x[0, :, 0]),
    ),
    *(
        lambda x: x.select(2, 1),
        lambda x: x.select(-1, 0),
        lambda x: torch.select(x, 0, 1),
        lambda x: x.narrow(2, 0, 2),
    ),
    *(lambda x: x.narrow(-1, 1, 2), lambda x: torch.narrow(x, dim=3, start=0, length=2)),
    lambda x: x.index_select(2, torch.tensor([1, 0])),
]


@pytest.mark.parametrize("at", range(len(TURNED)))
def test_ways_to_turn_and_to_take(at: int) -> None:
    """``x.T`` and its kin had no rule."""
    exact(TURNED[at], place_of(TURNED[at]))
