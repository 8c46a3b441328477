"""Times are measured once and kept, by what the networks and the place are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from seqprune.budget.target import Target
from seqprune.engine.batches import Batches
from seqprune.engine.ending import say_time
from seqprune.engine.listener import Listener
from seqprune.engine.modules import ModuleTask
from seqprune.engine.state import State
from seqprune.engine.stopwatch import Stopwatch
from seqprune.runtimes.layers import Chain, Convolution, places_of
from seqprune.runtimes.turns import Clock, Pass, Spread
from seqprune.runtimes.where import Where

IMAGES = torch.zeros(2, 3, 8, 8)


def net(width: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.Conv2d(width, 2, 1)).eval()


class Counted:
    """A timer that says another number every time, and counts how often it is asked."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, passes: Sequence[Pass], _clock: Clock) -> list[Spread]:
        for once in passes:
            once()
            self.said += 1
        return [Spread(self.said - n, 0, 0, 1) for n in range(len(passes))]


@pytest.fixture
def timer() -> Counted:
    return Counted()


def watch_in(folder: Path, timer: Counted, runtime: str = "torch") -> Stopwatch:
    task = ModuleTask(net(4), Batches([(IMAGES,)], 2))
    return Stopwatch(Where(runtime, 1), task, State(folder), timer, timer)


def test_a_run_that_goes_on_finds_the_times_it_had(tmp_path: Path, timer: Counted) -> None:
    """Other times would be another plan."""
    chains = tuple(Chain((Convolution(3, width, (3, 3)),), 8, 8) for width in (4, 8))
    first = watch_in(tmp_path, timer)
    share, layers = first.share(net(4), net(2)), first.layers(chains)
    assert timer.said == 4
    again = watch_in(tmp_path, timer)
    assert (again.share(net(4), net(2)), again.layers(chains)) == (share, layers)
    assert again.share(net(4, seed=1), net(2, seed=1)) == share  # values decide nothing
    assert timer.said == 4
    assert again.share(net(4), net(3)) != share
    assert timer.said == 6
    watch_in(tmp_path / "another", timer).share(net(4), net(2))
    assert timer.said == 8


def test_places_are_where_convolutions_stand() -> None:
    twice = nn.Conv2d(4, 4, 1)
    found = places_of(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), twice, twice), torch.zeros(1, 3, 16, 8))
    assert [(place.height, place.width, place.uses) for place in found.values()] == [(16, 8, 1), (8, 4, 2)]
    assert found["0"].convolution == Convolution(3, 4, (3, 3), (2, 2), (1, 1))


@pytest.mark.parametrize("column_first", [True, False])
def test_what_is_timed_for_a_pair_has_its_shapes(column_first: bool) -> None:
    whole = Convolution(3, 6, (3, 5), (2, 1), (1, 2))
    chain = Chain(whole.factored(column_first, 4), 9, 11)
    one = Chain((whole,), 9, 11).module()
    assert chain.module()(chain.inputs()).shape == one(chain.inputs()).shape
    assert sum(p.numel() for p in chain.module().parameters()) == (3 * 4 * (3 if column_first else 5) + 4) + (
        4 * 6 * (5 if column_first else 3) + 6
    )


def test_depthwise_layers_stay_depthwise() -> None:
    narrow = Convolution(8, 8, (3, 3), groups=8).narrowed(8, 4)
    assert (narrow.inputs, narrow.outputs, narrow.groups) == (4, 4, 4)


def spreads(before: tuple[float, float, float], after: tuple[float, float, float]) -> dict[str, object]:
    """As :func:`seqprune.engine.ending.timed` gives them: low, median, high."""
    named = [dict(zip(("low", "median", "high"), each, strict=True)) for each in (before, after)]
    return {"runtime": "torch", "before": named[0], "after": named[1]}


@pytest.mark.parametrize(
    ("target", "before", "after", "said"),
    [
        ("params=0.8", (9.9, 10.0, 10.1), (9.6, 9.7, 9.8), "params=0.8 leaves 97% of the time in torch"),
        ("params=0.8", (9.9, 10.0, 10.1), (8.4, 8.5, 8.6), ""),
        ("params=0.8", (5.0, 10.0, 15.0), (4.0, 8.0, 12.0), ""),
        ("latency=0.8", (9.9, 10.0, 10.1), (7.9, 8.0, 8.1), ""),
        ("latency=0.8", (9.9, 10.0, 10.1), (7.0, 8.0, 9.0), "times in torch spread by 25%"),
    ],
)
def test_parameters_that_save_no_time_and_busy_machines_are_told(
    target: str, before: tuple[float, float, float], after: tuple[float, float, float], said: str
) -> None:
    """80 % of YOLOv8n's parameters bring 3 to 6 % of the time, and nothing said so."""
    heard: list[str] = []
    say_time(Target.parse(target), spreads(before, after), Listener(warning=heard.append))
    assert len(heard) == bool(said)
    assert all(text.startswith(said) for text in heard)
