"""Every criterion: a case small enough for hand and head, and the defining formula in float64 over whole networks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectors import Detector, Images
from hypothesis import HealthCheck, given, settings
from torch import nn

from seqprune import trace
from seqprune.budget.columns import Reader, Source
from seqprune.budget.criteria import CRITERIA, Readings, Scoring, _summed, register, scores
from seqprune.budget.price import Price
from seqprune.budget.second_order import readings_of
from seqprune.errors import InputError
from seqprune.graph import ChannelGraph
from seqprune.testing.networks import example, randomise
from seqprune.testing.strategies import networks

Row = Sequence[float]


class Twins(nn.Module):
    """Two convolutions with BatchNorm added together, three channels each, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(2, 3, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.head = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, -8.0]])[..., None, None])
            self.b.weight.copy_(torch.tensor([[0.0, -1.0], [0.0, 2.0], [0.0, 2.0]])[..., None, None])
            self.na.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
            self.nb.weight.copy_(torch.tensor([0.25, 1.0, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.na(self.a(x)) + self.nb(self.b(x))))


HAND = {
    "l1": [7 + 1, 0 + 2, 14 + 2],
    "l2": [5 + 1, 0 + 2, 10 + 2],
    "bn": [1.25, 3, 0.5],
    # a: distances 5 (0-1), 10 (1-2), √(3² + 12²) (0-2); b: 3 (0-1), 0 (1-2), 3 (0-2)
    "fpgm": [5 + math.sqrt(153) + 6, 15 + 3, 10 + math.sqrt(153) + 3],
    # a: 25/125, 0, 100/100; b: 1/9, 4/8, 4/8
    "lamp": [0.2 + 1 / 9, 0.5, 1.5],
    # gradients of a: all 1, of b: all -1
    "taylor": [25 + 1, 0 + 4, 100 + 4],
    # the head's weights squared times the variances: 1 · 4, 9 · 1, 0.25 · 9; the last one never leaves
    "obs": [1, 2, 0],
}


@pytest.fixture
def twins() -> Scoring:
    model = Twins().eval()
    gradients = {
        "a.weight": torch.ones(3, 2, 1, 1),
        "b.weight": -torch.ones(3, 2, 1, 1),
        "head.weight": torch.ones(1, 3, 1, 1),
    }
    graph = trace(model, torch.zeros(1, 2, 4, 4))
    readings = read_by_head(graph, [[4.0, 0, 0], [0, 1, 0], [0, 0, 9]], [1.0, 3.0, 0.5])
    return Scoring(model, graph, gradients=gradients, readings=readings)


def read_by_head(graph: ChannelGraph, covariance: list[list[float]], weight: Row) -> Readings:
    """What the head of ``Twins`` would read, made up; nothing else reads anything that may be removed."""
    output = np.flatnonzero(graph.pinned)[:1]
    reader = Reader(torch.tensor([weight], dtype=torch.float64), output)
    source = Source(torch.tensor(covariance, dtype=torch.float64), graph.by_name["a"].groups, (reader,))
    return Readings((source,), np.ones(graph.group_count, bool))


@pytest.mark.parametrize("name", HAND)
def test_by_hand(twins: Scoring, name: str) -> None:
    groups = twins.graph.by_name["a"].groups
    assert (groups == twins.graph.by_name["b"].groups).all()
    assert scores(name, twins)[groups] == pytest.approx(HAND[name], rel=1e-12)


def norm(row: Row) -> float:
    return math.sqrt(math.fsum(v * v for v in row))


def lamp_of(rows: Sequence[Row], c: int) -> float:
    squares = [norm(row) ** 2 for row in rows]
    return squares[c] / math.fsum(s for s in squares if s >= squares[c])


FORMULAS: dict[str, Callable[[Sequence[Row], int], float]] = {
    "l1": lambda rows, c: math.fsum(abs(v) for v in rows[c]),
    "l2": lambda rows, c: norm(rows[c]),
    "fpgm": lambda rows, c: math.fsum(math.dist(rows[c], other) for other in rows),
    "lamp": lamp_of,
}


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_by_definition_over_all_members(model: nn.Module) -> None:
    graph = trace(model, example())
    scoring = Scoring(model, graph)
    rows = {layer.name: model.get_submodule(layer.name).weight.flatten(1).tolist() for layer in graph.all_layers}
    for name, formula in FORMULAS.items():
        found = scores(name, scoring)
        for group, members in graph.members.items():
            expected = math.fsum(formula(rows[layer], channel) for layer, channel in members)
            assert found[group] == pytest.approx(expected, rel=1e-9), (name, members)


def test_what_was_measured_is_not_shown_number_by_number(twins: Scoring) -> None:
    assert not [name for name in ("gradients", "readings") if name in repr(twins)]
    assert (twins.seed, Scoring(twins.model, twins.graph).gradients) == (0, None)


def test_bn_sums_what_the_channels_pass_through() -> None:
    model = Detector().eval()
    randomise(model, 1)
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    found = scores("bn", Scoring(model, graph))
    expected = np.zeros(graph.group_count)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            layer = graph.by_name[name.removesuffix("bn") + "conv"]
            for group, weight in zip(layer.groups, module.weight.tolist(), strict=True):
                expected[group] += abs(weight)
    assert found == pytest.approx(expected)
    assert max(map(len, graph.members.values())) > 1


def test_bn_says_what_it_cannot_score() -> None:
    first = (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential(*first, nn.Conv2d(4, 1, 1), nn.ReLU(), nn.Conv2d(1, 2, 1)).eval()
    with pytest.raises(InputError, match="no BatchNorm follows 3,"):
        scores("bn", Scoring(model, trace(model, torch.zeros(1, 3, 4, 4))))


def test_taylor_is_the_squared_change_of_the_loss_to_first_order() -> None:
    """Scaling one weight by 1 ± ε changes the loss by ε times its contribution; a group's are squared and added up."""
    model = Twins().double().eval()
    graph, x = trace(model, torch.zeros(1, 2, 4, 4, dtype=torch.float64)), torch.randn(5, 2, 4, 4).double()

    def loss() -> torch.Tensor:
        return model(x).square().mean()

    parameters = dict(model.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss(), [*parameters.values()]), strict=True))
    found = scores("taylor", Scoring(model, graph, gradients=gradients))
    step = 1e-6
    with torch.no_grad():
        for channel, group in enumerate(graph.by_name["a"].groups):
            expected = 0.0
            for weight in (layer.weight[channel].flatten() for layer in (model.a, model.b)):
                for index, value in enumerate(weight.tolist()):
                    weight[index] = value * (1 + step)
                    after = float(loss())
                    weight[index] = value * (1 - step)
                    expected += ((after - float(loss())) / (2 * step)) ** 2
                    weight[index] = value
            assert found[group] == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert len(set(found[graph.by_name["a"].groups])) == 3


def test_taylor_needs_gradients_of_this_model(twins: Scoring) -> None:
    with pytest.raises(InputError, match="give labelled images"):
        scores("taylor", Scoring(twins.model, twins.graph))
    with pytest.raises(InputError, match="no gradient for a"):
        scores("taylor", Scoring(twins.model, twins.graph, gradients={}))


def test_filters_that_repeat_each_other_are_no_distance_apart() -> None:
    """By products of rows, as is quicker for many, equal filters are the rounding of their squares apart."""
    model = nn.Sequential(nn.Conv2d(3, 40, 9), nn.ReLU(), nn.Conv2d(40, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(-1, 1, 3 * 81).reshape(1, 3, 9, 9).expand(40, -1, -1, -1))
    graph = trace(model, torch.zeros(1, 3, 12, 12))
    assert (scores("fpgm", Scoring(model, graph))[graph.by_name["0"].groups] == 0).all()


def test_obs_knows_what_the_others_can_stand_in_for(twins: Scoring) -> None:
    """Of two equal channels one costs nothing, and the other all that both did: 4, more than the third's 0.25.

    Which of them is the one is rounding, another on another processor.
    """
    readings = read_by_head(twins.graph, [[1.0, 1, 0], [1, 1, 0], [0, 0, 1]], [1.0, 1.0, 0.5])
    *equal, other = scores("obs", replace(twins, readings=readings))[twins.graph.by_name["a"].groups]
    assert (sorted(equal), other) == ([0, 2], 1)


def test_obs_takes_the_least_loss_for_what_it_saves_at_every_step() -> None:
    """By definition: the error that the best weights leave, found by solving for them, less what was lost before."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.ReLU()),
        nn.Conv2d(4, 2, 1),
    ).eval()
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    readings, price = readings_of(model, graph, Images()), Price(model, graph)
    assert [len(source.readers) for source in readings.sources] == [1] * 4
    found = scores("obs", Scoring(model, graph, readings=readings))

    def loss(gone: np.ndarray, ignored: np.ndarray) -> float:
        total = 0.0
        for source in readings.sources:
            kernel = len(source.products) // len(source.groups)
            ridge = 3e-3 * source.products.diagonal().mean()
            covariance = (source.products + ridge * torch.eye(len(source.products))).numpy()
            stay = np.repeat(~gone[source.groups], kernel)
            for reader in source.readers:
                weight = reader.weight.numpy()[~ignored[reader.groups]]
                best = np.zeros_like(weight)
                best[:, stay] = np.linalg.solve(covariance[stay][:, stay], covariance[stay] @ weight.T).T
                total += float(np.trace((weight - best) @ covariance @ (weight - best).T))
        return total

    gone = np.zeros(graph.group_count, bool)
    order = np.argsort(found, kind="stable")[: int(found.max())].tolist()
    assert len(order) == 4 + 5 + 4 - 3  # one channel of each layer stays
    for group in order:
        costs = {}
        for other in np.flatnonzero(~graph.pinned & ~gone).tolist():
            layer = graph.by_name[graph.members[other][0][0]]
            if (~gone[layer.groups]).sum() > 1:
                more = gone.copy()
                more[other] = True
                costs[other] = (loss(more, gone) - loss(gone, gone)) / price.savings(gone)[other]
        assert costs[group] == pytest.approx(min(costs.values()), rel=1e-6)
        gone[group] = True


def test_obs_orders_a_wide_layer_to_its_last_channel() -> None:
    """What a floor spares is for the choice to say: equal scores would leave in any order."""
    model = nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), nn.Conv2d(24, 2, 1)).eval()
    graph = trace(model, torch.zeros(1, 3, 4, 4))
    groups, weight = graph.by_name["0"].groups, torch.linspace(1, 2, 24, dtype=torch.float64)
    reader = Reader(weight[None], np.flatnonzero(graph.pinned)[:1])
    source = Source(torch.eye(24, dtype=torch.float64), groups, (reader,))
    readings = Readings((source,), np.ones(graph.group_count, bool))
    assert scores("obs", Scoring(model, graph, readings=readings))[groups].tolist() == list(range(24))


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_scores_are_the_same_however_many_weights_are_added_up_at_once(
    twins: Scoring, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: scores(name, twins) for name in ("l1", "l2", "lamp")}
    monkeypatch.setattr("seqprune.budget.criteria.WEIGHTS_AT_ONCE", at_once)
    for name, expected in before.items():
        np.testing.assert_array_equal(scores(name, twins), expected)


def test_a_wide_layer_is_never_copied_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for a layer of some hundred megabytes took longer to get than its weights to add up."""
    monkeypatch.setattr("seqprune.budget.criteria.WEIGHTS_AT_ONCE", 120)
    copied: list[int] = []

    def each(part: torch.Tensor) -> torch.Tensor:
        copied.append(part.numel())
        return part.abs_()

    rows = -torch.ones(10, 70)
    assert _summed(rows, each).tolist() == [70.0] * 10
    assert max(copied) <= 120
    assert (rows == -1).all(), "criteria only read"


def test_a_layer_that_reads_nothing_has_no_weights() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.some, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch has nothing to initialise
                self.none = nn.Linear(0, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last((self.some(x) + self.none(x[:, :0])).relu())

    model = Empty().eval()
    graph = trace(model, torch.zeros(2, 3))
    expected = model.some.weight.abs().sum(1).tolist()
    assert scores("l1", Scoring(model, graph))[graph.by_name["none"].groups] == pytest.approx(expected)


def test_obs_has_to_see(twins: Scoring) -> None:
    with pytest.raises(InputError, match="give images"):
        scores("obs", replace(twins, readings=None))
    known = np.ones(twins.graph.group_count, bool)
    known[twins.graph.by_name["a"].groups[1]] = False
    with pytest.raises(InputError, match="obs cannot see what all that reads a does"):
        scores("obs", replace(twins, readings=Readings((), known)))


def test_random_takes_its_seed(twins: Scoring) -> None:
    model, graph = twins.model, twins.graph
    first, again, other = (scores("random", Scoring(model, graph, seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()


def test_a_user_adds_a_criterion(twins: Scoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqprune.budget.criteria.CRITERIA", dict(CRITERIA))
    register("first", lambda scoring: -np.arange(scoring.graph.group_count, dtype=np.float64))
    assert scores("first", twins).argmax() == 0
    with pytest.raises(InputError, match="cannot be named 'first'"):
        register("first", lambda scoring: np.zeros(scoring.graph.group_count))
    with pytest.raises(InputError, match="cannot be named ''"):
        register("", lambda scoring: np.zeros(scoring.graph.group_count))
    register("short", lambda _scoring: np.zeros(1))
    with pytest.raises(InputError, match="one number for each group"):
        scores("short", twins)
    register("broken", lambda scoring: np.where(np.arange(scoring.graph.group_count) == 1, np.nan, 1.0))
    with pytest.raises(InputError, match="not finite"):
        scores("broken", twins)
    with pytest.raises(InputError, match="there is no criterion 'best'"):
        scores("best", twins)
