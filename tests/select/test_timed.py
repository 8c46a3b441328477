"""Layers in milliseconds, against a clock that takes a fixed time for a layer and more for every multiplication."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from seqprune.budget.timed import SHARES, STEP, Line, Times, _half, times_of, uses_in_ms
from seqprune.runtimes.layers import Chain, places_of

START, EACH = 0.5, 1e-5
X = torch.zeros(2, 3, 24, 32)


class Network(nn.Module):
    """Strides in either direction, a depthwise and a grouped layer, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1)
        self.down = nn.Conv2d(48, 96, (3, 5), stride=(1, 2), padding=(1, 2))
        self.depth = nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.grouped = nn.Conv2d(96, 64, 1, groups=2)
        self.twice = nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twice(self.twice(self.grouped(self.depth(self.down(self.first(x)))).relu()))


def multiplications(chain: Chain) -> int:
    """As they are run."""
    x, total = chain.inputs(), 0
    for each in chain.convolutions:
        module = each.module()
        x = module(x)
        total += x.numel() * prod(module.weight.shape[1:])
    return total


def milliseconds(chain: Chain) -> float:
    return START * len(chain.convolutions) + EACH * multiplications(chain)


class Clock:
    def __init__(self, whole: float) -> None:
        self.whole = whole
        self.asked: list[tuple[Chain, ...]] = []

    def milliseconds(self, model: nn.Module) -> float:
        return self.whole

    def layers(self, chains: tuple[Chain, ...]) -> list[float]:
        self.asked.append(chains)
        return [milliseconds(chain) for chain in chains]

    def share(self, whole: nn.Module, smaller: nn.Module) -> float:
        raise AssertionError("nothing is compared")


def timed(whole: float) -> tuple[nn.Module, Clock, Times]:
    model, clock = Network().eval(), Clock(whole)
    return model, clock, times_of(model, X, clock, pairs=("down", "twice"))


@pytest.mark.parametrize("whole", [1e9, 2.0])
def test_lines_are_what_the_clock_does_and_never_more_in_sum_than_the_network(whole: float) -> None:
    model, _, times = timed(whole)
    places = places_of(model, X)
    uses = {name: 2 if name == "twice" else 1 for name in places}
    alone = {name: uses[name] * milliseconds(place.chain()) for name, place in places.items()}
    shrink = min(1.0, whole / sum(alone.values()))
    assert times.whole == whole
    assert set(times.layers) == set(alone) == {"first", "down", "depth", "grouped", "twice"}
    for name, place in places.items():
        assert times.alone[name] == pytest.approx(shrink * alone[name])
        line, in_all = times.layers[name], shrink * uses[name]
        if name == "grouped":
            assert (line.base, line.each) == (pytest.approx(in_all * milliseconds(place.chain())), 0.0)
        else:
            assert line.base == pytest.approx(in_all * START)
            assert line.each == pytest.approx(in_all * EACH * multiplications(place.chain()))
    assert set(times.pairs) == {(name, first) for name in ("down", "twice") for first in ("column", "row")}
    for (name, first), line in times.pairs.items():
        for rank in (5, 40):
            pair = places[name].chain(*places[name].convolution.factored(first == "column", rank))
            assert line.base + rank * line.each == pytest.approx(shrink * uses[name] * milliseconds(pair))
    elements = {name: model.get_submodule(name).weight.numel() for name in places}  # type: ignore[operator,union-attr]
    assert uses_in_ms(model, times) == {name: times.layers[name].each / elements[name] for name in places}


def test_pairs_are_timed_at_shares_of_the_rank_at_which_nothing_is_gained() -> None:
    """So many channels between that both take as many multiplications, in steps of what a processor does at once."""
    model, clock, _ = timed(1.0)
    for name, place in places_of(model, X).items():
        for chains in (asked for asked in clock.asked if len(asked) == 2 * len(SHARES)):
            if chains[0].convolutions[0].inputs != place.convolution.inputs:
                continue
            assert name in ("down", "twice")
            whole = multiplications(place.chain())
            for least, (chain, share) in enumerate(zip(chains, 2 * SHARES, strict=True)):
                rank = chain.convolutions[0].outputs
                each = multiplications(chain) / rank
                assert rank % STEP == 0
                assert abs(rank - share * whole / each) <= STEP / 2 or (
                    rank == STEP * (1 + least % 3) and share * whole / each < rank
                )
            columns = [chain.convolutions[0].kernel[1] == 1 for chain in chains]
            assert columns == [True] * 3 + [False] * 3


def test_narrower_layers_have_half_of_either_width_in_steps() -> None:
    model, clock, _ = timed(1.0)
    whole = {name: place.convolution for name, place in places_of(model, X).items()}
    widths = [[(c.convolutions[0].inputs, c.convolutions[0].outputs) for c in chains] for chains in clock.asked]
    own = [each for each in widths if len(each) != 2 * len(SHARES)]
    assert own == [
        [(3, 48), (3, 16), (1, 48)],
        [(48, 96), (48, 48), (16, 96)],
        [(96, 96), (48, 48)],
        [(96, 64)],
        [(64, 64), (64, 32), (32, 64)],
    ]
    assert [each[0] for each in own] == [(c.inputs, c.outputs) for c in whole.values()]
    assert [_half(width) for width in (1, 2, 3, 20, 31, 32, 48, 64, 100)] == [1, 1, 1, 10, 15, 16, 16, 32, 48]


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(1, 5), (2, 7), (4, 11)], Line(3, 2)),
        ([(0, 1), (2, 1), (4, 4)], Line(0.5, 0.75)),
        ([(1, 4), (3, 2)], Line(3, 0)),  # less for more is noise
        ([(2, 6)], Line(6, 0)),
        ([(1, 0), (3, 5)], Line(0, 1.5)),  # through the origin: (0 + 15) / (1 + 9)
    ],
)
def test_lines_are_those_of_least_squares_that_neither_fall_nor_start_below_zero(
    points: list[tuple[float, float]], line: Line
) -> None:
    found = Line.through(points)
    assert (found.base, found.each) == (pytest.approx(line.base), pytest.approx(line.each))


def test_a_network_without_convolutions_has_its_time_alone() -> None:
    assert times_of(nn.ReLU(), X, Clock(3.0)) == Times(3.0, {}, {}, {})
