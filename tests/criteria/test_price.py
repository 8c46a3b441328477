"""What is charged, against what there is: parameters as they are counted, products as they are run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seqprune.budget.cost import gflops, parameters
from seqprune.budget.price import Price, operations
from seqprune.budget.target import Target, price_of
from seqprune.graph import trace
from seqprune.plan import PrunePlan
from seqprune.runtimes.layers import Chain
from seqprune.surgery import compact

X = torch.zeros(1, 3, 8, 8)


class Odd(nn.Module):
    """Two layers with one weight, a map that scales all, and an output that the first layer makes too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.one, self.two = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.two.weight = self.one.weight
        self.last = nn.Conv2d(6, 4, 1)
        self.scale = nn.Parameter(torch.ones(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(self.scale * (x + self.two(self.one(x).relu())).relu())


GROUPED = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize("model", [Odd().eval(), GROUPED.eval()], ids=["odd", "grouped"])
def test_every_parameter_is_charged_once(model: nn.Module) -> None:
    graph = trace(model, X)
    price = Price(model, graph)
    assert price.whole == parameters(model)
    free = ~graph.pinned
    wanted = free & (np.arange(graph.group_count) % 4 < 2)
    gone = graph.legalise(wanted, np.arange(graph.group_count, dtype=float), free)
    assert gone.any()
    assert price.total(gone) == parameters(compact(model, PrunePlan.from_removed(graph, gone), graph))


def test_a_channel_that_one_group_of_a_convolution_reads_saves_what_it_reads() -> None:
    graph = trace(GROUPED.eval(), X)
    price, none = Price(GROUPED, graph), np.zeros(graph.group_count, bool)
    for group in graph.by_name["0"].groups:
        one = np.arange(graph.group_count) == group
        assert price.savings(none)[group] == pytest.approx(price.total(none) - price.total(one))


class Weighted(nn.Module):
    """All that has a weight to multiply by: maps, maps that grow, tokens and one vector; one layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 6, 3, stride=2, groups=3)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.grows = nn.ConvTranspose2d(6, 4, 3, stride=2)
        self.tokens, self.vector = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grows(self.twice(self.twice(self.maps(x))))
        return self.vector(self.tokens(x.flatten(2).mT).mean(1))


def test_every_weight_is_charged_for_what_is_multiplied_by_it() -> None:
    model = Weighted().eval()
    found = operations(model, X)
    charged = sum(uses * model.get_submodule(path).weight.numel() for path, uses in found.items())  # type: ignore[operator]
    assert charged == pytest.approx(1e9 * gflops(model, X) / 2)
    assert found["vector"] == 1
    assert found["twice"] == 2 * 9
    assert operations(model, X.expand(3, -1, -1, -1)) == found  # of one image


def test_where_no_channel_is_charged_all_is_paid_in_any_case() -> None:
    model = Weighted().eval()
    graph = trace(model, X)
    price = Price(model, graph, {}, in_all=5.0)
    everything = ~graph.pinned
    assert everything.any()
    assert price.beside == price.whole == price.total(everything) == 5
    assert (price.savings(~everything) == 0).all()


class Attending(nn.Module):
    """Products without a weight: of maps with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.b(x @ x.mT)


def test_products_without_a_weight_are_part_of_the_whole() -> None:
    model = Attending().eval()
    graph = trace(model, X)
    price = price_of(Target("flops", 0.5), model, graph, X)
    assert price.whole == pytest.approx(1e9 * gflops(model, X) / 2)
    assert price.beside == pytest.approx(6 * 8**3)


def test_time_is_charged_by_what_layers_take_and_the_rest_of_it_stays() -> None:
    """A tenth of a millisecond a layer and one for all of its channels, in a network that takes five."""

    class Clock:
        def milliseconds(self, model: nn.Module) -> float:
            return 5.0

        def layers(self, chains: tuple[Chain, ...]) -> list[float]:
            return [0.1 + share for share in (1.0, *(0.5,) * (len(chains) - 1))]

        def share(self, whole: nn.Module, smaller: nn.Module) -> float:
            raise AssertionError("nothing is compared")

    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    graph = trace(model, X)
    price = price_of(Target("latency", 0.5), model, graph, X, Clock())
    half = np.isin(np.arange(graph.group_count), graph.by_name["0"].groups[:3])
    assert price.whole == 5
    assert price.total(half) < 5
    assert price.total(~graph.pinned) == pytest.approx(price.beside)


def test_operations_are_counted_where_a_view_of_a_parameter_is_handed_on() -> None:
    """As a transformer's token for the class is; torch's counter follows the gradients of what modules are handed."""

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.norm, self.last = nn.Parameter(torch.zeros(1, 1, 8)), nn.Identity(), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            token: torch.Tensor = self.last(self.norm(self.token.expand(len(x), -1, -1)))
            return token

    model = Token().eval()
    assert gflops(model, torch.zeros(3, 1)) == pytest.approx(2 * 3 * 8 * 2 / 1e9)
    assert model.token.requires_grad
