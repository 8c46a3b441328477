"""A network of any code goes on from the middle, and what it computes from there is what it would have computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from seqprune.engine.batches import Batches
from seqprune.observe.replay import Units, units_of
from seqprune.observe.stages import stages_of
from seqprune.observe.streaming import BlockStream, whole_passes
from seqprune.observe.watching import watching
from seqprune.testing.networks import randomise


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(width, 12, 1), nn.BatchNorm2d(12), nn.Conv2d(12, width, 3, padding=1)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return x + self.two(functional.relu(self.norm(self.one(x)), inplace=True))


class Classifier(nn.Module):
    """As timm writes them: layers, a nest of blocks, and code between them that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(nn.Sequential(*(Residual(8) for _ in range(3))), nn.Sequential(Residual(8)))
        self.wide, self.last = nn.Conv2d(8, 16, 1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu_(self.norm(self.stem(x))))
        return self.last(functional.relu(self.wide(x)).mean((2, 3)))


class Hourglass(nn.Module):
    """What the finer half made is read again by the coarser one, and a layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.twice = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.up, self.last = nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = functional.silu(self.fine(x))
        coarse = self.twice(self.twice(self.coarse(fine)).relu())
        up = self.up(torch.cat([fine, functional.interpolate(coarse, scale_factor=2)], 1))
        return {"out": self.last(up.relu())}


class Named(nn.Module):
    """Two inputs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Linear(5, 8), nn.Linear(7, 8), nn.Linear(8, 3)

    def forward(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.both((self.left(given["a"]) + self.right(given["b"])).relu())


def named() -> list[dict[str, torch.Tensor]]:
    return [{"a": torch.randn(4, 5), "b": torch.randn(4, 7)} for _ in range(3)]


def images() -> list[torch.Tensor]:
    return [torch.randn(4, 3, 16, 16) for _ in range(3)]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Any]]]] = {
    "classifier": (Classifier, images),
    "hourglass": (Hourglass, images),
    "named": (Named, named),
}


def case(name: str) -> tuple[nn.Module, Batches, Units]:
    torch.manual_seed(0)
    model, data = CASES[name][0](), CASES[name][1]()
    randomise(model, 0)
    batches = Batches(data)
    units = units_of(model.eval(), next(iter(batches)))
    assert units is not None
    return model, batches, units


def seen(model: nn.Module, names: list[str], passes: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for each in passes:
        run = each.ready()
        with torch.no_grad(), watching(model, names, lambda _n, _m, x, y: found.extend([x.clone(), y.clone()])):
            run(slice(0, 4))
    return found


@pytest.mark.parametrize("cache_bytes", [1 << 30, 5_000])
@pytest.mark.parametrize("name", CASES)
def test_layers_see_and_make_what_they_do_in_whole_passes(name: str, cache_bytes: int) -> None:
    model, batches, units = case(name)
    stream = BlockStream(units, cache_bytes)
    stages = stages_of(model, next(iter(batches)).input(model, slice(1)), units.block_of)
    assert sum(map(len, stages)) > 2
    for stage in stages:
        streamed = seen(model, stage, stream.passes(model, stage, batches))
        whole = seen(model, stage, whole_passes(model, batches))
        assert len(streamed) == len(whole) > 0
        assert all(map(torch.equal, streamed, whole))
    stream.reset()


def test_blocks_run_once_for_each_of_their_layers_and_once_to_pass() -> None:
    """Every stage of the fit of a module took whole passes: 21 minutes for an EfficientNet and 100 images."""
    model, batches, units = case("classifier")
    blocks = [module for module in model.modules() if isinstance(module, Residual)]
    assert [units.block_of(f"blocks.{at}.two") for at in ("0.0", "0.1", "0.2", "1.0")] == [2, 3, 4, 5]
    stream = BlockStream(units)
    for block in blocks:
        block.runs = 0
    for stage in stages_of(model, next(iter(batches)).input(model, slice(1)), units.block_of):
        seen(model, stage, stream.passes(model, stage, batches))
    assert [block.runs for block in blocks] == [(2 + 1) * len(batches)] * len(blocks)


def test_what_is_kept_is_what_is_read_behind() -> None:
    _, _, units = case("hourglass")
    assert units.paths == ("fine", "coarse", "up", "last")
    assert units.needed == (frozenset(), {0}, {0, 1}, {2}, {3})
    assert units.block_of("twice") == 2  # it runs twice, between these


class Leaves(nn.Module):
    """Hands on what it made behind the back of the graph of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.first.register_forward_hook(self.keep)

    def keep(self, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        self.kept = output.detach().numpy()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        return y + torch.from_numpy(self.kept)


def test_a_network_that_cannot_go_on_from_the_middle_runs_from_its_start() -> None:
    torch.manual_seed(0)
    assert units_of(Leaves().eval(), next(iter(Batches(images())))) is None
    assert units_of(Classifier().eval(), next(iter(Batches([torch.randn(1, 3, 16, 16)])))) is not None
    assert units_of(nn.Linear(3, 3).eval(), next(iter(Batches([torch.randn(2, 3)])))) is None
