"""A budget is met, legally, wherever it can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectors import Detector
from hypothesis import HealthCheck, given, settings
from hypothesis import example as tried
from hypothesis import strategies as st
from torch import nn

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.budget.criteria import Scoring, scores
from seqprune.budget.price import Price, operations
from seqprune.budget.spread import TOLERANCE, by_scores, pools, protected
from seqprune.errors import InputError
from seqprune.graph import ChannelGraph
from seqprune.testing.networks import Network, Unit, example, randomise
from seqprune.testing.strategies import networks

SPREADS = ("uniform", "global", "absolute")
PROPERTY = settings(max_examples=25, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def detector() -> tuple[nn.Module, ChannelGraph, Price]:
    model = Detector().eval()
    randomise(model, 3)
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    return model, graph, Price(model, graph)


def share(price: Price, removed: np.ndarray) -> float:
    return price.total(removed) / price.total(np.zeros_like(removed))


def least(graph: ChannelGraph, price: Price, scored: np.ndarray, **options: object) -> float:
    """The least reachable share, as the refusal of an absurd target names it: all where no channel can leave."""
    with pytest.raises(InputError, match="cannot be met") as caught:
        by_scores(graph, price, scored, 1e-9, **options)  # type: ignore[arg-type]
    if not graph.layers:
        assert "no channel of any layer can leave" in str(caught.value)
        return 1.0
    return float(str(caught.value).split("cannot be met, ")[1].split()[0])


@PROPERTY
@given(
    model=networks(),
    target=st.floats(0.05, 1),
    spread=st.sampled_from(SPREADS),
    floor=st.floats(0, 0.6),
    round_to=st.sampled_from((1, 2)),
    seed=st.integers(0, 9),
)
def test_always_legal(model: nn.Module, target: float, spread: str, floor: float, round_to: int, seed: int) -> None:
    graph = trace(model, example())
    price, scored = Price(model, graph), scores("random", Scoring(model, graph, seed))
    options = {"spread": spread, "floor": floor, "round_to": round_to, "protect": [graph.all_layers[0].name]}
    try:
        removed = by_scores(graph, price, scored, target, **options)
    except InputError:
        assert least(graph, price, scored, **options) > target
        return
    assert share(price, removed) <= target * (1 + TOLERANCE)
    assert graph.unbalanced(removed) is None
    assert not (removed & graph.pinned).any()
    assert not removed[graph.all_layers[0].groups].any()
    for layer in graph.all_layers:
        assert (~removed[layer.groups]).sum() >= max(1, np.ceil(floor * layer.channels))
    plan = PrunePlan.from_removed(graph, removed)
    verify(mask(model, plan, graph), compact(model, plan, graph), example())


def whole() -> Network:
    """A network of which nothing can leave: its only layer reads the image, and what it made of that."""
    net, unit = Network(), Unit(3, 3)
    net.add("module", (0,), (3,), unit)
    net.add("module", (1,), (3,), unit)
    net.finish()
    return net.double().eval()


@PROPERTY
@tried(model=whole(), spread="uniform", targets=(1.0, 1.0))
@given(model=networks(), spread=st.sampled_from(SPREADS), targets=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)))
def test_asking_for_less_never_leaves_more(model: nn.Module, spread: str, targets: tuple[float, float]) -> None:
    graph = trace(model, example())
    price, scored = Price(model, graph), scores("l1", Scoring(model, graph))
    smaller, larger = sorted(targets)
    bottom = least(graph, price, scored, spread=spread)
    if bottom <= smaller:
        few, many = (by_scores(graph, price, scored, t, spread=spread) for t in (smaller, larger))  # type: ignore[arg-type]
        assert price.total(few) <= price.total(many)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("unit", ["params", "flops"])
@pytest.mark.parametrize("target", [0.9, 0.7, 0.5, 0.3])
def test_the_target_is_met(
    detector: tuple[nn.Module, ChannelGraph, Price], spread: str, unit: str, target: float
) -> None:
    model, graph, price = detector
    if unit == "flops":
        price = Price(model, graph, operations(model, torch.zeros(1, 3, 32, 32)))
    removed = by_scores(graph, price, scores("l2", Scoring(model, graph)), target, spread=spread)  # type: ignore[arg-type]
    # So small a network has steps of up to 6 %.
    assert target * 0.94 <= share(price, removed) <= target


def test_nothing_asked_nothing_removed(detector: tuple[nn.Module, ChannelGraph, Price]) -> None:
    model, graph, price = detector
    assert not by_scores(graph, price, scores("l1", Scoring(model, graph)), 1).any()


def test_uniform_keeps_the_same_ratio_of_every_layer_and_the_best_of_it(
    detector: tuple[nn.Module, ChannelGraph, Price],
) -> None:
    model, graph, price = detector
    scored = scores("l1", Scoring(model, graph))
    removed = by_scores(graph, price, scored, 0.5)
    ratios = [float((~removed[layer.groups]).mean()) for layer in graph.layers]
    assert max(ratios) - min(ratios) <= 2 / 8  # layers of eight channels: a channel more, and one to be balanced
    for pool in pools(graph, ~graph.pinned):
        gone, stay = scored[pool[removed[pool]]], scored[pool[~removed[pool]]]
        assert not len(gone) or gone.max() <= stay.min()


def test_global_takes_more_where_scores_differ_more(detector: tuple[nn.Module, ChannelGraph, Price]) -> None:
    _, graph, price = detector
    scored = np.ones(graph.group_count)
    groups = graph.by_name["model.3.conv"].groups
    scored[groups[:12]] = 1e-3
    removed = by_scores(graph, price, scored, 0.8, spread="global")
    assert removed[groups[:12]].all()


def test_absolute_takes_scores_as_they_are(detector: tuple[nn.Module, ChannelGraph, Price]) -> None:
    _, graph, price = detector
    scored = np.ones(graph.group_count)
    groups = graph.by_name["model.3.conv"].groups
    scored[groups] = np.linspace(0.1, 0.2, len(groups))  # no layer differs as little, and yet all of them leave
    removed = by_scores(graph, price, scored, 0.7, spread="absolute")
    assert removed[groups].sum() == len(groups) - np.ceil(0.1 * len(groups))


@pytest.mark.parametrize("spread", SPREADS)
def test_of_equal_channels_the_first_leave_first(spread: str) -> None:
    """As many as there are: a sort that is not stable leaves up to sixteen in order, and no more."""
    model = nn.Sequential(nn.Conv2d(3, 200, 1), nn.ReLU(), nn.Conv2d(200, 2, 1)).eval()
    graph = trace(model, torch.zeros(1, 3, 4, 4))
    groups = graph.by_name["0"].groups
    scored = np.ones(graph.group_count)
    scored[groups[:100]] = 2
    gone = by_scores(graph, Price(model, graph), scored, 0.75, spread=spread)[groups]  # type: ignore[arg-type]
    assert gone[100 : 100 + gone.sum()].all()


def test_what_meets_the_target_otherwise_is_asked_for_shares_of_the_price(
    detector: tuple[nn.Module, ChannelGraph, Price],
) -> None:
    model, graph, price = detector
    scored = scores("l1", Scoring(model, graph))
    found = by_scores(graph, price, scored, 0.5, meet=lambda at: at(0.7))
    np.testing.assert_array_equal(found, by_scores(graph, price, scored, 0.7))
    twice = by_scores(graph, price, scored, 0.4, share=lambda gone: 2 * price.share(gone) - 1)
    np.testing.assert_array_equal(twice, found)


def test_the_last_channels_of_a_network_may_leave_too() -> None:
    """The output is made by the first layer as well, so that what comes last is in the middle of the network."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.wide, self.back = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.out(x)
            return x + self.back(self.wide(x).relu())

    model = Sum().eval()
    graph = trace(model, torch.zeros(1, 3, 4, 4))
    assert not graph.pinned[-1]
    removed = by_scores(graph, Price(model, graph), -np.arange(graph.group_count, dtype=float), 0.6, floor=0.5)
    assert np.flatnonzero(removed).tolist() == list(range(graph.group_count - int(removed.sum()), graph.group_count))


def test_rounding_and_protection(detector: tuple[nn.Module, ChannelGraph, Price]) -> None:
    model, graph, price = detector
    scored = scores("l1", Scoring(model, graph))
    removed = by_scores(graph, price, scored, 0.6, round_to=4, protect=["model.2"])
    for layer in graph.layers:
        stay = int((~removed[layer.groups]).sum())
        assert stay % 4 == 0
        assert stay == layer.channels or not layer.name.startswith("model.2.")
    with pytest.raises(InputError, match=r"no layer in 'model\.77' to protect"):
        by_scores(graph, price, scored, 0.6, protect=["model.77"])


def test_what_cannot_be_is_said(detector: tuple[nn.Module, ChannelGraph, Price]) -> None:
    model, graph, price = detector
    scored = scores("l1", Scoring(model, graph))
    with pytest.raises(InputError, match=r"a target of 0\.05 cannot be met, 0\.\d+ stays at the least"):
        by_scores(graph, price, scored, 0.05, floor=0.5)
    with pytest.raises(InputError, match="target=0"):
        by_scores(graph, price, scored, 0)
    for wrong in (scored[:-1], np.append(scored, 1.0), np.append(scored[:-1], np.nan)):
        with pytest.raises(InputError, match="one finite number"):
            by_scores(graph, price, wrong, 0.5)


def test_what_was_met_once_is_not_asked_again(detector: tuple[nn.Module, ChannelGraph, Price]) -> None:
    """Time tells something else every time: a target that was met is no error for it."""
    model, graph, price = detector
    noise = np.random.default_rng(0)
    for _ in range(20):
        by_scores(
            graph,
            price,
            scores("l2", Scoring(model, graph)),
            0.7,
            share=lambda removed: share(price, removed) * (1 + 0.05 * noise.standard_normal()),
        )


def test_a_path_protects_what_lies_in_it_and_no_namesake() -> None:
    """``--protect model.1`` protected ``model.10`` too, and no test asked."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 3, 1) for _ in range(12)), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    )
    graph = trace(model, torch.zeros(1, 3, 4, 4))

    def names(*paths: str) -> list[str]:
        found = protected(graph, paths)
        return [layer.name for layer in graph.all_layers if found[layer.groups].all()]

    assert names("1") == names("1.") == ["1"]
    assert names("12") == ["12.0", "12.1"]
    assert names("1", "12.0") == ["1", "12.0"]
    with pytest.raises(InputError, match=r"no layer in '12\.2' to protect"):
        protected(graph, ["12.2"])
